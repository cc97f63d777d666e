/* Tables and the lineage: sorting, filtering, what is known of a number, and what is out of sight. */
function sortKey(cell) {
  const { v } = cell.dataset;
  if (v === undefined) return cell.textContent.trim();
  return v === "" ? null : Number(v);
}

const words = new Intl.Collator();
// A sign belongs to a number unless it joins it to what is before; 1.10.2 has no decimals.
const NUMBER = /(?<![\w.)\]][-+\u2212]*)[-+\u2212]?(?:(?<!\.)\d+\.\d+(?!\.?\d)|\d+)(?:e[-+]?\d+\b)?|\d+/gi;
const parsed = new Map();

/** A text as its words and numbers in turn, words first: "of 12 in -0.5" is ["of ", 12, " in ", -0.5]. */
function inParts(text) {
  if (parsed.has(text)) return parsed.get(text);
  const parts = [];
  let from = 0;
  for (const { 0: found, index } of text.matchAll(NUMBER)) {
    parts.push(text.slice(from, index), Number(found.replace("\u2212", "-")));
    from = index + found.length;
  }
  parts.push(text.slice(from));
  parsed.set(text, parts);
  return parts;
}

function compareTexts(one, other) {
  const [left, right] = [inParts(one), inParts(other)];
  for (let index = 0; index < Math.min(left.length, right.length); index += 1) {
    const order = index % 2 ? left[index] - right[index] : words.compare(left[index], right[index]);
    if (order) return order;
  }
  return left.length - right.length || words.compare(one, other);
}

function compare(one, other) {
  if (typeof one === "number" && typeof other === "number") return one - other;
  if (typeof one !== typeof other) return typeof one === "number" ? -1 : 1;
  return compareTexts(one, other);
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

/** Say at which sides of what scrolls there is more: touch screens show no scroll bar. */
function startEdges() {
  const look = (it) => {
    const left = it.scrollLeft > 1;
    const right = it.scrollLeft + it.clientWidth < it.scrollWidth - 1;
    it.dataset.more = [left && "left", right && "right"].filter(Boolean).join(" ");
  };
  const sizes = new ResizeObserver((entries) => entries.forEach(({ target }) => look(target)));
  for (const it of all(".scroll")) {
    sizes.observe(it);
    it.addEventListener("scroll", () => look(it), { passive: true });
  }
}
