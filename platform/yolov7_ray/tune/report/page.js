// A trial under the pointer is lit in every chart and in the table; a click on a column's head sorts by it.
const of = trial => document.querySelectorAll(`[data-trial="${CSS.escape(trial)}"]`);
const light = (event, on) => {
  const owner = event.target.closest("[data-trial]");
  if (owner) for (const part of of(owner.dataset.trial)) part.classList.toggle("lit", on);
};
document.addEventListener("pointerover", event => light(event, true));
document.addEventListener("pointerout", event => light(event, false));
document.addEventListener("click", event => {
  const owner = event.target.closest("[data-trial]");
  if (owner && !event.target.closest("a")) for (const part of of(owner.dataset.trial)) part.classList.toggle("kept");
});
for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  const head = button.closest("th"), column = [...head.parentNode.children].indexOf(head);
  const up = head.getAttribute("aria-sort") === "descending";
  const body = head.closest("table").tBodies[0];
  const key = row => row.children[column].dataset.value ?? row.children[column].textContent;
  const rows = [...body.rows].sort((a, b) => {
    const one = key(a), other = key(b);
    if (one === "" || other === "") return (one === "") - (other === "");  // what is unknown comes last, either way
    const order = isNaN(one) || isNaN(other) ? one.localeCompare(other) : one - other;
    return up ? order : -order;
  });
  for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  body.append(...rows);
});
