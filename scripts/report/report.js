"use strict";
// Sorting, the runs behind a number, values of the learning curves.

const data = JSON.parse(document.getElementById("data").textContent);

function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

// ---------------------------------------------------------------------------------------------------------- sorting

function sortBy(table, index, direction) {
  const body = table.tBodies[0];
  table.original ??= [...body.rows];
  const key = (row) => {
    const cell = row.cells[index];
    return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
  };
  const compare = (a, b) => {
    const [first, second] = [key(a), key(b)];
    if (first === "" || second === "") return (first === "") - (second === ""); // empty cells last, either way
    const order = typeof first === "number" && typeof second === "number"
      ? first - second : String(first).localeCompare(String(second), "en", { numeric: true });
    return direction === "descending" ? -order : order;
  };
  body.append(...(direction ? [...table.original].sort(compare) : table.original));
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, index) => {
    const button = element("button", { type: "button" }, ...head.childNodes);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const next = { ascending: "descending", descending: null }[head.getAttribute("aria-sort")];
      const direction = next === undefined ? "ascending" : next;
      for (const other of heads) other.removeAttribute("aria-sort");
      if (direction) head.setAttribute("aria-sort", direction);
      sortBy(table, index, direction);
    });
  });
}

// ------------------------------------------------------------------------------------------- the runs behind a number

const popover = document.getElementById("popover");

function runsTable(key, metric) {
  const head = ["seed", data.metrics[metric] ?? metric, "minutes", "hardware", "code"];
  const numeric = (index) => (index < 3 ? { className: "numeric" } : {});
  const cells = (run) => [
    element("a", { href: run.file }, String(run.seed)), String(run.metrics[metric] ?? ""), run.minutes, run.hardware, run.commit,
  ];
  return [
    element("h3", {}, element("a", { href: `#run/${key}` }, key)),
    element("div", { className: "scroll", tabIndex: 0 }, element("table", {},
      element("thead", {}, element("tr", {}, ...head.map((text, i) => element("th", { scope: "col", ...numeric(i) }, text)))),
      element("tbody", {}, ...data.runs[key].map((run) =>
        element("tr", {}, ...cells(run).map((value, i) => element("td", numeric(i), value))))))),
  ];
}

for (const link of document.querySelectorAll("a.runs")) {
  link.setAttribute("aria-haspopup", "dialog");
  link.addEventListener("click", (event) => {
    if (!popover.showPopover || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const keys = link.dataset.runs.split(" ").filter((key) => data.runs[key]);
    popover.replaceChildren(...keys.flatMap((key) => runsTable(key, link.dataset.metric)));
    popover.showPopover();
    const anchor = link.getBoundingClientRect(), box = popover.getBoundingClientRect();
    const below = anchor.bottom + 6 + box.height < innerHeight;
    popover.style.left = `${Math.max(8, Math.min(anchor.left, document.documentElement.clientWidth - box.width - 8))}px`;
    popover.style.top = `${Math.max(8, below ? anchor.bottom + 6 : anchor.top - box.height - 6)}px`;
    popover.querySelector("td a")?.focus({ preventScroll: true });
  });
}
addEventListener("scroll", () => popover.matches(":popover-open") && popover.hidePopover(), { passive: true });

function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target?.tagName !== "DETAILS") return;
  popover.hidePopover?.();
  target.open = true;
  target.scrollIntoView();
}
addEventListener("hashchange", openTarget);
openTarget();

// ----------------------------------------------------------------------------------------------------------- contents

const contents = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
const visible = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((one) => one.isIntersecting)) {
    for (const link of contents.values()) link.removeAttribute("aria-current");
    contents.get(entry.target.id)?.setAttribute("aria-current", "true");
  }
}, { rootMargin: "0px 0px -75% 0px" });
for (const section of document.querySelectorAll("section[id]")) visible.observe(section);

// ------------------------------------------------------------------------------------------------------------- curves

const choice = document.querySelector("[data-shows=curve-metric]");
function showMetric() {
  const wanted = choice.querySelector("input:checked").value;
  for (const panels of document.querySelectorAll("[data-curve-metric]")) panels.hidden = panels.dataset.curveMetric !== wanted;
}
if (choice) {
  choice.addEventListener("change", showMetric);
  showMetric();
}

for (const chart of document.querySelectorAll(".chart[data-points]")) {
  const { epochs, x, names, values, phases } = JSON.parse(chart.dataset.points);
  const cursor = chart.querySelector(".cursor"), reading = chart.nextElementSibling;
  let shown = epochs.length - 1;
  const show = (index) => {
    shown = Math.max(0, Math.min(epochs.length - 1, index));
    for (const end of ["x1", "x2"]) cursor.setAttribute(end, x[shown]);
    cursor.toggleAttribute("hidden", false);
    const [phase] = phases.findLast(([, start]) => start < epochs[shown]);
    const parts = names.flatMap((name, line) => {
      const at = values[line][shown];
      return at ? [`${name} ${at[0]}${at.length > 1 ? ` [${at[1]}, ${at[2]}]` : ""}`] : [];
    });
    reading.textContent = `epoch ${epochs[shown]} (${phase}): ${parts.join(", ")}`;
  };
  const hide = () => {
    cursor.toggleAttribute("hidden", true);
    reading.textContent = "";
  };
  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect();
    const place = ((event.clientX - box.left) / box.width) * chart.viewBox.baseVal.width;
    show(x.reduce((best, at, index) => (Math.abs(at - place) < Math.abs(x[best] - place) ? index : best), 0));
  });
  chart.addEventListener("pointerleave", () => document.activeElement === chart || hide());
  chart.addEventListener("focus", () => chart.matches(":focus-visible") && show(shown));
  chart.addEventListener("blur", hide);
  chart.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    show(shown + step);
  });
}
