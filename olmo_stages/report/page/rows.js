/* The rows behind a figure: shown in a dialog, saved as CSV. */
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
  place.scrollTo(0, 0);
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
