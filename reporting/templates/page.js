// Sort a table by the column whose head is clicked: ascending first, what is not there last.
for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  const th = button.parentElement, table = th.closest("table"), body = table.tBodies[0];
  const column = th.cellIndex, down = th.getAttribute("aria-sort") === "ascending";
  for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
  th.setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = row => row.cells[column].dataset.key;
  const order = (a, b) => {
    if (key(a) === "" || key(b) === "") return (key(a) === "") - (key(b) === "");
    const numbers = key(a) - key(b);
    const both = isNaN(numbers) ? key(a).localeCompare(key(b), "en", {numeric: true}) : numbers;
    return (down ? -1 : 1) * both;
  };
  body.append(...[...body.rows].sort(order));
});
