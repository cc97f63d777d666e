"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const make = (name, text = "", className = "") =>
    Object.assign(document.createElement(name), { textContent: text, className });

  /* ---- theme: automatic, light, dark ---- */
  const THEMES = ["automatic", "light", "dark"];
  const KEY = "olmo-stages-theme";
  let theme = "automatic";
  try { theme = localStorage.getItem(KEY) || theme; } catch { /* storage may be forbidden on file:// */ }
  const wear = (name) => {
    theme = THEMES.includes(name) ? name : "automatic";
    if (theme === "automatic") delete root.dataset.theme;
    else root.dataset.theme = theme;
  };
  wear(theme);

  function startTheme() {
    const button = document.getElementById("theme");
    const say = () => { button.textContent = `Theme: ${theme}`; };
    button.hidden = false;
    say();
    button.addEventListener("click", () => {
      wear(THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]);
      try { localStorage.setItem(KEY, theme); } catch { /* not remembered, then */ }
      say();
      redrawAll();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
  }

  /** The colour that a variable of the style sheet has now. */
  function colour(name) {
    const probe = make("span");
    probe.style.color = `var(--${name})`;
    document.body.append(probe);
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  }
  const isDark = () => {
    const [red, green, blue] = colour("paper").match(/\d+/g).map(Number);
    return red + green + blue < 384;
  };

  /* ---- tables ---- */
  function sortKey(cell) {
    const { v } = cell.dataset;
    if (v === undefined) return cell.textContent.trim();
    return v === "" ? null : Number(v);
  }

  const words = new Intl.Collator(undefined, { numeric: true });
  function compare(one, other) {
    if (typeof one === "number" && typeof other === "number") return one - other;
    if (typeof one !== typeof other) return typeof one === "number" ? -1 : 1;
    return words.compare(one, other);
  }

  function sortBy(head) {
    const table = head.closest("table");
    const body = table.tBodies[0];
    const index = head.cellIndex;
    const order = head.ariaSort === "ascending" ? "descending" : "ascending";
    all("thead th", table).forEach((it) => { it.ariaSort = it === head ? order : "none"; });
    const sign = order === "ascending" ? 1 : -1;
    const keyed = [...body.rows].map((row) => [sortKey(row.cells[index]), row]);
    const known = keyed.filter(([key]) => key !== null && key !== "");
    const unknown = keyed.filter(([key]) => key === null || key === "");
    known.sort(([one], [other]) => sign * compare(one, other));
    body.append(...[...known, ...unknown].map(([, row]) => row));
  }

  function filterRows(box, table) {
    const wanted = box.value.trim().toLowerCase();
    const rows = table ? [...table.tBodies[0].rows] : [];
    let shown = 0;
    for (const row of rows) {
      row.hidden = wanted !== "" && !row.textContent.toLowerCase().includes(wanted);
      shown += !row.hidden;
    }
    box.parentElement.querySelector("output").textContent = wanted ? `${shown} of ${rows.length} rows` : "";
  }

  function startTables() {
    document.addEventListener("click", (event) => {
      const head = event.target.closest("th[aria-sort]");
      if (head && event.target.closest("button")) sortBy(head);
    });
    for (const label of all(".filtering")) {
      label.hidden = false;
      const box = label.querySelector("input");
      box.addEventListener("input", () => filterRows(box, label.nextElementSibling.querySelector("table")));
    }
  }

  /* ---- what is known of a number, on hover and focus ---- */
  function startTips() {
    const tip = document.getElementById("tip");
    let owner = null;
    let leaving = 0;
    const hide = () => {
      owner?.removeAttribute("aria-describedby");
      owner = null;
      tip.hidden = true;
    };
    const show = (target) => {
      clearTimeout(leaving);
      if (!target || target === owner) return;
      hide();
      owner = target;
      tip.textContent = target.dataset.tip;
      tip.hidden = false;
      target.setAttribute("aria-describedby", "tip");
      const place = target.getBoundingClientRect();
      const below = place.bottom + 6 + tip.offsetHeight < innerHeight;
      tip.style.top = `${Math.max(4, below ? place.bottom + 6 : place.top - tip.offsetHeight - 6)}px`;
      tip.style.left = `${Math.max(4, Math.min(place.left, innerWidth - tip.offsetWidth - 8))}px`;
    };
    const leave = () => { clearTimeout(leaving); leaving = setTimeout(hide, 150); };
    const tipped = (event) => event.target.closest?.("[data-tip]");
    document.addEventListener("pointerover", (event) => {
      if (tipped(event)) show(tipped(event));
      else if (event.target === tip) clearTimeout(leaving);
      else if (owner && owner !== document.activeElement) leave();
    });
    document.addEventListener("focusin", (event) => { if (tipped(event)) show(tipped(event)); else hide(); });
    document.addEventListener("focusout", leave);
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
    document.addEventListener("scroll", () => { if (owner && owner !== document.activeElement) hide(); }, true);
  }

  /** One tab stop for the numbers of a table or of the lineage; arrows lead through them. */
  function startArrows() {
    const items = (group) => all("[data-tip][tabindex]", group);
    const groups = "table.grid, svg.lineage";
    const rowOf = (item) => item.closest("tr, g.stage");
    for (const group of all(groups)) items(group).forEach((it, index) => { it.setAttribute("tabindex", index ? "-1" : "0"); });
    document.addEventListener("focusin", ({ target }) => {
      const group = target.dataset?.tip !== undefined && target.closest(groups);
      if (group) items(group).forEach((it) => it.setAttribute("tabindex", it === target ? "0" : "-1"));
    });
    document.addEventListener("keydown", (event) => {
      const { target, key } = event;
      const group = target.dataset?.tip !== undefined && target.closest(groups);
      if (!group || !key.startsWith("Arrow")) return;
      const rows = Map.groupBy(items(group), rowOf);
      const lines = [...rows.values()];
      const line = lines.findIndex((it) => it.includes(target));
      const at = lines[line].indexOf(target);
      const sideways = { ArrowLeft: -1, ArrowRight: 1 }[key];
      const next = sideways
        ? lines[line][at + sideways]
        : lines[line + (key === "ArrowUp" ? -1 : 1)]?.at(Math.min(at, lines[line + (key === "ArrowUp" ? -1 : 1)].length - 1));
      event.preventDefault();
      next?.focus();
    });
  }

  /* ---- figures ---- */
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

  /** What a legend needs beside or below the 420 pixels of a plot. */
  function legendHeight(data, layout, width) {
    const names = data.filter((it) => it.showlegend !== false && it.name && it.type !== "heatmap" && it.visible !== false).map((it) => read(it.name));
    if (names.length < 2 || layout.showlegend === false) return 0;
    if (layout.legend.orientation !== "h") return Math.min(400, Math.max(0, names.length * 30 - 280));
    // plotly gives every entry the width of the longest.
    const widest = Math.max(...names.map((it) => it.length)) * 7.5 + 52;
    return Math.ceil(names.length / Math.max(1, Math.floor((width - 80) / widest))) * 21;
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
    layout.height += legendHeight(data, layout, width);
    return { data, layout };
  }

  class Drawn {
    constructor(element) {
      this.element = element;
      this.place = element.querySelector(".plot");
      this.packed = element.querySelector(".packed");
      this.select = element.querySelector("select.choice");
      this.title = element.querySelector("h3").textContent;
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
      const sheet = make("div");
      await Plotly.newPlot(sheet, data, layout);
      for (const view of this.views) await view.apply(sheet);
      await Plotly.restyle(sheet, { visible: this.graph.data.map((it) => it.visible ?? true) });
      const filename = [this.element.dataset.file, this.choice.name].filter(Boolean).join("-").replace(/[^\p{L}\p{N}._-]+/gu, "_").slice(0, 100);
      await Plotly.downloadImage(sheet, { format, filename, width: 900, height: layout.height, scale: format === "png" ? 2 : 1 });
      Plotly.purge(sheet);
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

  /* ---- the rows behind a figure ---- */
  const MOST = 4000;
  const NAMES = { value: "value", ci_low: "interval from", ci_high: "to", null: "null", p: "p", p_max: "p (max)", q: "q", n: "n", n_groups: "groups" };
  const ORDER = ["metric", "stage", "reference", "trait", "variant", "layer", "layer_type", "reference_layer", "reference_layer_type", ...Object.keys(NAMES), "seed", "note"];
  const ALWAYS = new Set(["metric", "value", "ci_low", "ci_high", "null", "p", "n", "n_groups"]);
  const at = (column, index) => (Array.isArray(column) ? column[index] : column.all);
  const numeric = (column) => (Array.isArray(column) ? column : [column.all]).every((it) => it === null || typeof it === "number" || it === "Infinity" || it === "-Infinity");

  function cell(name, value, isNumber) {
    const shown = value === null ? (name === "value" ? "undefined" : "") : String(value).replace("Infinity", "∞");
    const made = make("td", shown, isNumber ? "n" : "");
    if (isNumber) made.dataset.v = value === null ? "" : Number(value);
    return made;
  }

  function rowTable(rows) {
    const shown = Object.entries(rows.columns).filter(([name, it]) => Array.isArray(it) || (ALWAYS.has(name) && it.all !== null));
    const place = (name) => (ORDER.includes(name) ? ORDER.indexOf(name) : -1);
    shown.sort(([one], [other]) => place(one) - place(other));
    const table = make("table", "", "grid");
    const heads = table.createTHead().insertRow();
    for (const [name, column] of shown) {
      const head = make("th", "", numeric(column) ? "n" : "");
      head.scope = "col";
      head.ariaSort = "none";
      const button = make("button", NAMES[name] ?? name.replaceAll("_", " "));
      button.type = "button";
      head.append(button);
      heads.append(head);
    }
    const body = table.createTBody();
    const kinds = shown.map(([, column]) => numeric(column));
    for (let index = 0; index < Math.min(rows.count, MOST); index += 1) {
      const row = make("tr");
      row.append(...shown.map(([name, column], it) => cell(name, at(column, index), kinds[it])));
      body.append(row);
    }
    return table;
  }

  /** Rows as CSV: quoted where needed, and no text that a spreadsheet would take for a formula. */
  function csv(rows) {
    const names = Object.keys(rows.columns);
    const guarded = (value) => {
      if (value === null) return "";
      if (typeof value === "number") return String(value);
      if (value === "Infinity" || value === "-Infinity") return value.replace("Infinity", "inf");
      const text = /^[=+\-@\t\r]/.test(String(value)) ? `'${value}` : String(value);
      return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    const lines = [names.map(guarded)];
    for (let index = 0; index < rows.count; index += 1) lines.push(names.map((it) => guarded(at(rows.columns[it], index))));
    return lines.map((it) => it.join(",")).join("\r\n") + "\r\n";
  }

  function download(text, name) {
    const link = make("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  let opened = null;
  function openRows(figure) {
    const dialog = document.getElementById("data");
    opened = figure;
    const { rows } = figure;
    dialog.querySelector("h2").textContent = figure.name;
    const box = dialog.querySelector("input");
    box.value = "";
    dialog.querySelector("output").textContent = "";
    dialog.querySelector(".tools").hidden = !rows;
    const place = dialog.querySelector(".scroll");
    const said = dialog.querySelector(".shared");
    if (!rows) {
      said.textContent = "The analysis does not say which measurements this figure is made of. All of them are in measurements.parquet beside this page.";
      place.replaceChildren();
    } else {
      const shared = Object.entries(rows.columns)
        .filter(([name, it]) => !Array.isArray(it) && !ALWAYS.has(name) && it.all !== null && it.all !== "")
        .map(([name, it]) => `${name.replaceAll("_", " ")}: ${it.all}`);
      const count = rows.count > MOST ? `The first ${MOST} of ${rows.count} rows; the CSV has all.` : `${rows.count} rows.`;
      said.textContent = [count, "Numbers have 7 significant digits.", ...(shared.length ? [`All rows: ${shared.join(" · ")}.`] : [])].join(" ");
      place.replaceChildren(rowTable(rows));
    }
    dialog.showModal();
  }

  function startRows() {
    const dialog = document.getElementById("data");
    const box = dialog.querySelector("input");
    dialog.querySelector(".close").addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    box.addEventListener("input", () => filterRows(box, dialog.querySelector("table")));
    dialog.querySelector(".csv").addEventListener("click", () => {
      const name = [opened.element.dataset.file, opened.choice.name].filter(Boolean).join("-").replace(/[^\p{L}\p{N}._-]+/gu, "_").slice(0, 100);
      download(csv(opened.rows), `${name}.csv`);
    });
  }

  /* ---- commands and contents ---- */
  function startCopying() {
    for (const button of all("button.copy")) {
      button.hidden = false;
      button.addEventListener("click", async () => {
        const text = button.parentElement.querySelector("pre");
        try {
          await navigator.clipboard.writeText(text.textContent);
          button.textContent = "Copied";
        } catch {
          getSelection().selectAllChildren(text);
          button.textContent = "Selected";
        }
        setTimeout(() => { button.textContent = "Copy"; }, 2000);
      });
    }
  }

  function startContents() {
    const links = new Map(all("#contents a").map((it) => [it.hash.slice(1), it]));
    const seen = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        if (!isIntersecting) continue;
        links.forEach((link) => link.removeAttribute("aria-current"));
        links.get(target.id).setAttribute("aria-current", "true");
      }
    }, { rootMargin: "-10% 0px -80% 0px" });
    for (const id of links.keys()) seen.observe(document.getElementById(id));
  }

  document.addEventListener("DOMContentLoaded", () => {
    startTheme();
    startTables();
    startTips();
    startArrows();
    startRows();
    startCopying();
    startContents();
    startFigures();
  });
})();
