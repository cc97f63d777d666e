/* Figures: unpacked, dressed in the page's colours, drawn by plotly, saved. */
const CONFIG = {
  displaylogo: false,
  // plotly 4 offers by default to upload a figure to its makers' cloud.
  showSendToCloud: false,
  plotlyServerURL: "",
  responsive: false,
  modeBarButtonsToRemove: ["toImage", "select2d", "lasso2d", "autoScale2d"],
};
const NARROW = 600;
const PRINTED = 670; // what fits between the margins of A4 and of Letter
let printing = false;
const figures = [];

async function unpack(node) {
  const bytes = Uint8Array.from(atob(node.textContent.trim()), (it) => it.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

/** The rows behind the figures of a section, each once: unpacked once, too. */
const unpackedTables = new Map();
function tablesOf(section) {
  const node = section.querySelector("script.tables");
  if (!unpackedTables.has(section)) unpackedTables.set(section, node ? unpack(node).then((it) => it.tables) : []);
  return unpackedTables.get(section);
}

/** The rows of a choice: their number and columns, a list or what all of them share. */
function rowsAt({ table, runs }, tables) {
  const places = [];
  for (let it = 0; it < runs.length; it += 2) for (let step = 0; step < runs[it + 1]; step += 1) places.push(runs[it] + step);
  const columns = Object.entries(tables[table]).map(([name, column]) => {
    const values = Array.isArray(column) ? places.map((it) => column[it]) : [column.all];
    return [name, values.every((it) => it === values[0]) ? { all: values[0] } : values];
  });
  return { count: places.length, columns: Object.fromEntries(columns) };
}

/** Text of plotly, which knows a little HTML, as it is read. */
const read = (text) => new DOMParser().parseFromString(String(text), "text/html").body.textContent;
const forPlotly = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

/** Greys turned round for a dark page; what has a hue is left as it is. */
function turned(text) {
  const hex = /^#([0-9a-f]{3}|[0-9a-f]{6})$/i.exec(text);
  const rgb = /^rgba?\(\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*(?:,\s*([\d.]+)\s*)?\)$/i.exec(text);
  const named = { black: [0, 0, 0], white: [255, 255, 255], grey: [128, 128, 128], gray: [128, 128, 128] }[text.toLowerCase()];
  let parts = named;
  if (hex) parts = (hex[1].length === 3 ? [...hex[1]].map((it) => it + it) : hex[1].match(/../g)).map((it) => parseInt(it, 16));
  if (rgb) parts = rgb.slice(1, 4).map(Number);
  if (!parts || Math.max(...parts) - Math.min(...parts) > 24) return text;
  const grey = Math.round(232 - (parts[0] * (232 - 30)) / 255);
  return `rgba(${grey},${grey},${grey},${rgb?.[4] ?? 1})`;
}

function turnAll(value, key = "") {
  if (key === "colorscale") return value;
  if (typeof value === "string") return /color$/i.test(key) ? turned(value) : value;
  if (Array.isArray(value)) {
    return typeof value[0] === "object" || /color$/i.test(key) ? value.map((it) => turnAll(it, key)) : value;
  }
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([name, it]) => [name, turnAll(it, name)]));
}

/** What a legend beside a plot needs more than the plot's own height. */
function legendHeight(data, layout) {
  const names = data.filter((it) => it.showlegend !== false && it.name && it.type !== "heatmap" && it.visible !== false);
  if (names.length < 2 || layout.showlegend === false || layout.legend.orientation === "h") return 0;
  return Math.min(400, Math.max(0, names.length * 30 - 280));
}

/** Put the legend below what the axis has there, and give back to the axes the height that it takes. */
function makeRoom(graph, { height, margin, legend }) {
  const box = graph.querySelector(".infolayer .legend");
  const axes = graph._fullLayout._size;
  if (!box || legend.orientation !== "h" || !(legend.y < 0) || !axes) return undefined;
  const bottom = graph.getBoundingClientRect().top + axes.t + axes.h;
  const below = all(".xaxislayer-above, .xaxislayer-below, .g-xtitle", graph).map((it) => it.getBoundingClientRect());
  const used = Math.max(0, ...below.filter((it) => it.height).map((it) => it.bottom - bottom)) + 12;
  const needed = used + (graph._fullLayout.legend._height ?? box.getBoundingClientRect().height) + 6;
  const wanted = height - margin.t - 80;
  return Plotly.relayout(graph, { "legend.y": -used / wanted, "margin.b": needed, height: Math.round(margin.t + wanted + needed) });
}

/** A figure as plotly shall draw it: in the page's colours, as wide as its place. */
function dressed(figure, width) {
  const dark = isDark();
  const copy = structuredClone({ data: figure.data, layout: figure.layout });
  const { data, layout } = dark ? turnAll(copy) : copy;
  const square = Object.keys(layout).some((it) => layout[it]?.scaleanchor);
  const narrow = width < NARROW;
  delete layout.title;
  delete layout.updatemenus;
  delete layout.autosize;
  // Frames are not kept, and plotly's faster points need what the page's policy forbids.
  layout.sliders = layout.sliders?.filter((it) => !it.steps?.some((step) => step.method === "animate"));
  data.forEach((it) => { if (it.type === "scattergl") it.type = "scatter"; });
  const above = (layout.annotations ?? []).some((it) => it.yref === "paper" && it.y >= 1) || layout.sliders?.length;
  const margin = { ...layout.margin, t: above ? 56 : 32 };
  if (narrow) Object.assign(margin, { l: Math.min(margin.l ?? 56, 56), r: 12 });
  Object.assign(layout, {
    width,
    height: Math.round(layout.height ?? (square ? Math.min(width, printing ? 420 : 600) : printing ? 320 : 420)),
    margin,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { ...layout.font, family: getComputedStyle(document.body).fontFamily, size: layout.font?.size ?? (narrow ? 11 : 13), color: colour("ink") },
    hoverlabel: { align: "left", ...layout.hoverlabel },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("soft"), activecolor: colour("ink") },
  });
  const axes = Object.keys(layout).filter((it) => /^[xy]axis\d*$/.test(it));
  for (const name of new Set(["xaxis", "yaxis", ...axes])) {
    layout[name] = { gridcolor: colour("line"), linecolor: colour("edge"), tickcolor: colour("edge"), zerolinecolor: colour("edge"), ...layout[name] };
  }
  layout.legend = { ...layout.legend, bgcolor: "rgba(0,0,0,0)" };
  if (width < NARROW) Object.assign(layout.legend, { orientation: "h", x: 0, xanchor: "left", y: -0.24, yanchor: "top" });
  layout.height += legendHeight(data, layout);
  return { data, layout };
}

class Drawn {
  constructor(element) {
    this.element = element;
    this.place = element.querySelector(".plot");
    this.packed = element.querySelector(".packed");
    this.select = element.querySelector("select.choice");
    this.title = element.querySelector("h3").textContent;
    this.caption = element.querySelector("figcaption");
    this.width = 0;
    this.views = [];
    this.select?.addEventListener("change", () => this.show());
    element.querySelector(".rows").addEventListener("click", () => openRows(this));
    for (const button of all(".image", element)) button.addEventListener("click", () => this.save(button.dataset.format));
    new ResizeObserver(() => this.resized()).observe(this.place);
  }

  get choice() { return this.choices[Number(this.select?.value ?? 0)]; }
  get rows() { return this.choice.rows && rowsAt(this.choice.rows, this.tables); }
  get name() { return [this.title, this.choice.name].filter(Boolean).join(" · "); }

  async load() {
    this.tables = await tablesOf(this.element.closest("section"));
    this.choices ??= (await unpack(this.packed)).choices;
    all("button, select", this.element).forEach((it) => { it.disabled = false; });
  }

  async start() {
    try {
      await this.load();
      this.show();
    } catch (error) {
      this.fail(typeof DecompressionStream === "undefined"
        ? "This browser is too old to unpack the figure (it has no DecompressionStream): Chrome 80, Firefox 113 or Safari 16.4 and later can."
        : `The figure cannot be unpacked: ${error.message}`);
    }
  }

  fail(reason) {
    this.element.dataset.state = "broken";
    if (window.Plotly && this.graph) Plotly.purge(this.graph);
    this.graph = null;
    this.place.replaceChildren(make("p", reason, "broken"));
  }

  /** Draw the choice that is selected, with native selects in place of plotly's menus. */
  show() {
    this.makeViews();
    this.draw();
  }

  draw() {
    if (!this.choices) return;
    if (!this.choice.figure) return this.fail("This figure cannot be drawn: it is not what plotly writes. Its rows are behind Data.");
    this.width = printing ? PRINTED : this.place.clientWidth;
    if (!this.graph) {
      this.graph = make("div");
      this.graph.setAttribute("role", "group");
      this.place.replaceChildren(this.graph);
    }
    this.graph.setAttribute("aria-label", `Plot: ${this.name}. The numbers are behind the button Data.`);
    const { data, layout } = dressed(this.choice.figure, this.width);
    // What the reader hid or zoomed stays when only colours or the width change.
    layout.uirevision = [this.choice.name, ...this.views.map(({ select }) => select.value)].join("|");
    try {
      Plotly.react(this.graph, data, layout, CONFIG);
      this.views.forEach((view) => view.apply(this.graph));
      makeRoom(this.graph, layout);
      this.caption.textContent = this.choice.caption;
      this.element.dataset.state = "drawn";
      this.element.dataset.shown = this.choice.name;
    } catch (error) {
      this.fail(`This figure cannot be drawn: ${error.message}. Its rows are behind Data.`);
    }
  }

  makeViews() {
    const chosen = this.views.map((it) => it.select.selectedOptions[0]?.textContent);
    const menus = this.choice.figure?.layout.updatemenus ?? [];
    const holder = this.element.querySelector(".views");
    this.views = menus.filter((it) => it.buttons?.every(({ method }) => ["restyle", "relayout", "update"].includes(method))).map((menu, index) => {
      const select = make("select", "", "view");
      menu.buttons.forEach((button, at) => select.append(new Option(read(button.label), at)));
      const before = [...select.options].findIndex((it) => it.textContent === chosen[index]);
      select.selectedIndex = before >= 0 ? before : Math.max(0, menu.active ?? 0);
      const apply = (graph) => {
        const { method, args } = menu.buttons[select.selectedIndex];
        return Plotly[method](graph, ...structuredClone(args));
      };
      select.addEventListener("change", () => this.draw());
      return { select, apply };
    });
    const label = make("span", this.views.length ? "View" : "");
    holder.replaceChildren(label, ...this.views.map(({ select }) => select));
    this.views.forEach(({ select }, index) => select.setAttribute("aria-label", `View ${index + 1} of ${this.name}`));
  }

  resized() {
    if (this.graph && !printing && this.place.clientWidth && Math.abs(this.place.clientWidth - this.width) > 1) {
      cancelAnimationFrame(this.pending);
      this.pending = requestAnimationFrame(() => this.draw());
    }
  }

  /** Save the plot as it would be printed: on white, with its title. */
  async save(format) {
    if (!this.graph) return;
    const { data, layout } = inLight(() => dressed(this.choice.figure, 900));
    const title = this.choice.figure.layout.title?.text ?? forPlotly(this.name);
    Object.assign(layout, { paper_bgcolor: "#ffffff", title: { text: title, x: 0.02, xanchor: "left", font: { size: 16 } } });
    layout.margin.t += 36;
    layout.height += 36;
    const sheet = make("div", "", "sheet");
    document.body.append(sheet);
    await Plotly.newPlot(sheet, data, layout);
    for (const view of this.views) await view.apply(sheet);
    await Plotly.restyle(sheet, { visible: this.graph.data.map((it) => it.visible ?? true) });
    await makeRoom(sheet, layout);
    const filename = [this.element.dataset.file, this.choice.name].filter(Boolean).join("-").replace(/[^\p{L}\p{N}._-]+/gu, "_").slice(0, 100);
    await Plotly.downloadImage(sheet, { format, filename, width: 900, height: sheet._fullLayout.height, scale: format === "png" ? 2 : 1 });
    Plotly.purge(sheet);
    sheet.remove();
  }
}

/** Do something as if the page were light. */
function inLight(act) {
  const before = root.dataset.theme;
  root.dataset.theme = "light";
  try { return act(); } finally {
    if (before === undefined) delete root.dataset.theme;
    else root.dataset.theme = before;
  }
}

const redrawAll = () => figures.forEach((it) => { if (it.graph) it.draw(); });

async function startFigures() {
  figures.push(...all(".figure").map((it) => new Drawn(it)));
  const idle = window.requestIdleCallback ?? ((act) => setTimeout(act, 1));
  for (const figure of figures) {
    await new Promise((next) => idle(next, { timeout: 200 }));
    await figure.start();
  }
  document.body.dataset.figures = "drawn";
  let before;
  addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    root.dataset.theme = "light";
    printing = true;
    redrawAll();
  });
  addEventListener("afterprint", () => {
    if (before === undefined) delete root.dataset.theme;
    else root.dataset.theme = before;
    printing = false;
    redrawAll();
  });
}
