"use strict";
// Tables are sorted by a click on a head, and narrowed by words: every word has to be in the row.

function before(a, b, column, down) {
  const [x, y] = [a, b].map((row) => row.cells[column].dataset.sort);
  if (x === "" || y === "") return (x === "") - (y === "");  // what is not known comes last
  const [u, v] = [Number(x), Number(y)];
  const order = Number.isNaN(u) || Number.isNaN(v) ? x.localeCompare(y) : Math.sign(u - v);
  return down ? -order : order;
}

function sort(table, head) {
  // Numbers are asked for their largest first, words from the beginning.
  const first = head.classList.contains("words") ? "ascending" : "descending";
  const second = first === "ascending" ? "descending" : "ascending";
  const now = head.getAttribute("aria-sort") === first ? second : first;
  for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", now);
  const body = table.tBodies[0];
  const rows = [...body.rows];
  rows.sort((a, b) => before(a, b, head.cellIndex, now === "descending"));
  body.append(...rows);
}

function narrow(table, text, told) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [...table.tBodies[0].rows];
  for (const row of rows) {
    const found = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => found.includes(word));
  }
  const shown = rows.filter((row) => !row.hidden).length;
  told.textContent = `${shown} of ${rows.length} rows`;
}

for (const section of document.querySelectorAll("section.table")) {
  const table = section.querySelector("table");
  const input = section.querySelector("input");
  const told = section.querySelector("output");
  for (const button of table.tHead.querySelectorAll("button")) {
    button.addEventListener("click", () => sort(table, button.closest("th")));
  }
  input.addEventListener("input", () => narrow(table, input.value, told));
  narrow(table, input.value, told);
}
