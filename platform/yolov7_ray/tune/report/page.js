// A trial under the pointer is lit in every chart and in the table.
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
