/* The page: theme, commands, contents. All files of it share one scope; this one is the first. */
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
  startEdges();
  startTips();
  startArrows();
  startRows();
  startCopying();
  startContents();
  startFigures();
});
