"""What is asked of a page from inside it, in JavaScript."""

COUNTED = """plot => {
  const box = it => it.getBoundingClientRect();
  const large = it => box(it).width + box(it).height > 1;
  const count = names => [...plot.querySelectorAll(names)].filter(large).length;
  const some = of => of === undefined || [...of].flat().some(value => value !== null);
  const graph = plot.querySelector(".js-plotly-plot");
  const traces = graph ? graph._fullData.filter(it => it.visible === true) : [];
  return {
    width: box(plot).width,
    height: box(plot).height,
    traces: traces.filter(it => [it.x, it.y, it.z].every(some)).length,
    marks: count(".scatterlayer path.point, .scatterlayer path.js-line, .heatmaplayer image"),
  };
}"""
"""How large a plot is, how many traces hold anything, and how much is drawn of them."""

LEGENDS = """them => them.flatMap(figure => {
  const box = name => figure.querySelector(name)?.getBoundingClientRect();
  const legend = box(".infolayer .legend"), title = box(".g-xtitle text");
  const graph = figure.querySelector(".js-plotly-plot");
  if (!legend || !title || graph._fullLayout.legend.orientation !== "h") return [];
  return [{
    figure: figure.id, title: title.bottom, legend: legend.top, legend_end: legend.bottom,
    end: box(".main-svg").bottom, axes: graph._fullLayout._size.h,
  }];
})"""
"""Where the legends below plots are, the titles of the axes above them, and the axes' heights."""

CONTRASTS = """them => {
  const parts = text => text.match(/[\\d.]+/g)?.map(Number);
  const light = ([r, g, b]) => {
    const linear = it => it <= 0.04045 ? it / 12.92 : ((it + 0.055) / 1.055) ** 2.4;
    const [x, y, z] = [r, g, b].map(it => linear(it / 255));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const paper = light(parts(getComputedStyle(document.body).backgroundColor));
  return them.map(element => {
    const {fill} = getComputedStyle(element);
    if (!parts(fill)) return [`${element.textContent}: ${fill}`, 0];
    const ink = light(parts(fill));
    const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    return [element.textContent, ratio];
  });
}"""
"""Texts of drawings with their contrast to the page behind them, as WCAG 2 has it."""

FOCUSED = """() => {
  const it = document.activeElement;
  if (it === document.body) return null;
  const drawn = (line, width) => line !== "none" && parseFloat(width) >= 1;
  const style = getComputedStyle(it);
  const area = it.querySelector(":scope > .area");
  const around = area && getComputedStyle(area);
  const box = it.getBoundingClientRect();
  const again = (window.reached ??= new Set()).has(it);
  window.reached.add(it);
  return {
    what: it.outerHTML.slice(0, 90),
    again,
    seen: drawn(style.outlineStyle, style.outlineWidth)
      || Boolean(around && drawn(around.stroke, around.strokeWidth)),
    inside: box.right > 0 && box.bottom > 0 && box.left < innerWidth && box.top < innerHeight,
  };
}"""
"""What has the focus, whether it had it before, and whether that can be seen."""

UNREACHED = """() => {
  const controls = "a[href], button, select, input, summary, [tabindex='0']";
  const there = it => !it.disabled && it.checkVisibility() && !it.closest("dialog");
  return [...document.querySelectorAll(controls)]
    .filter(it => there(it) && !window.reached.has(it))
    .map(it => it.outerHTML.slice(0, 90));
}"""
"""Controls that never had the focus."""

KEYS = """(body, column) => [...body.rows].map(row => {
  const cell = row.cells[column], {v} = cell.dataset;
  return v === undefined ? cell.textContent.trim() : v === "" ? null : Number(v);
})"""
"""What the cells of a column are sorted by: a number, a text, or null where undefined."""

COLOURS = """() => {
  const of = (name, key) => getComputedStyle(document.querySelector(name))[key];
  return [
    of("body", "backgroundColor"), of("body", "color"), of(".plot .xtick text", "fill"),
    of(".plot .gridlayer path", "stroke"), of(".lineage .label", "fill"),
    of(".lineage .mark .value .main", "fill"),
  ];
}"""
"""What a reader sees of light and dark: the page, a plot, the lineage."""

TOO_WIDE = """(them, width) => them
  .filter(it => it.getBoundingClientRect().right > width + 1)
  .map(it => it.outerHTML.slice(0, 90))"""
"""Elements that reach beyond a width."""

SORTED = f"""them => {{
  const keys = {KEYS};
  return them.flatMap((table, number) => [...table.querySelectorAll("thead th")].flatMap(head => {{
    const [body] = table.tBodies, before = keys(body, head.cellIndex);
    return ["ascending", "descending"].map(() => {{
      head.querySelector("button").click();
      return {{
        table: number,
        head: head.textContent,
        order: head.ariaSort,
        heads: table.querySelectorAll("th[aria-sort$=ending]").length,
        before,
        keys: keys(body, head.cellIndex),
      }};
    }});
  }}));
}}"""
"""Every column of tables, sorted both ways by its button: the keys before and after."""

ROWLESS = """them => them.filter(figure => {
  figure.querySelector("button.rows").click();
  const dialog = document.getElementById("data");
  const rows = dialog.querySelectorAll("tbody tr").length;
  dialog.close();
  return rows === 0;
}).map(it => it.id)"""
"""Figures whose button shows no rows."""

PALE = """<!doctype html><body style="background: #fff"><p style="color: #ccc">pale</p><img src="">
<svg><text y="20" fill="#ccc">pale</text></svg>"""
"""A page that cannot be read."""
