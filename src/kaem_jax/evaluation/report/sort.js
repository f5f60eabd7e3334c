"use strict";
// A table of class "sortable" has one tbody for each entry; a button in its head names the data attribute to sort by.
for (const button of document.querySelectorAll("table.sortable button")) {
  button.addEventListener("click", () => {
    const table = button.closest("table");
    const value = (body) => Number(body.dataset[button.dataset.by]);
    const direction = button.dataset.first === "large" ? -1 : 1;
    const sorted = [...table.tBodies].sort((a, b) => direction * (value(a) - value(b)));
    for (const other of table.querySelectorAll("button")) other.removeAttribute("aria-pressed");
    button.setAttribute("aria-pressed", "true");
    table.append(...sorted);
  });
}
