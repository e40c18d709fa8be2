// Charts answer to the pointer: the nearest epoch is marked, and its values are read out below.
const SVG = "http://www.w3.org/2000/svg";
for (const owner of document.querySelectorAll("[data-readings]")) {
  const { unit, x, places, lines } = JSON.parse(owner.dataset.readings);
  const svg = owner.querySelector("svg"), cursor = svg.querySelector(".cursor"), reading = owner.querySelector(".reading");
  const show = index => {
    const values = lines.filter(line => line.values[index] != null).map(line => `${line.name} ${line.values[index]}`);
    reading.textContent = `${unit} ${x[index]} · ${values.join(" · ")}`;
  };
  const nearest = event => {
    const box = svg.getBoundingClientRect(), at = (event.clientX - box.left) * svg.viewBox.baseVal.width / box.width;
    return places.reduce((best, place, index) => Math.abs(place - at) < Math.abs(places[best] - at) ? index : best, 0);
  };
  svg.addEventListener("pointermove", event => {
    const index = nearest(event);
    cursor.setAttribute("d", `M${places[index]} ${cursor.dataset.top}V${cursor.dataset.bottom}`);
    show(index);
  });
  svg.addEventListener("pointerleave", () => { cursor.setAttribute("d", ""); show(x.length - 1); });
  show(x.length - 1);
}

// Precision, recall and F1 of a class at the confidence that the slider stands at.
const operating = document.getElementById("operating");
if (operating) {
  const { classes, best, area } = JSON.parse(operating.textContent);
  const slider = document.getElementById("confidence"), chooser = document.getElementById("curve-class");
  const px = value => area.left + value * (area.right - area.left), py = value => area.bottom - value * (area.bottom - area.top);
  const path = points => points.filter(([x, y]) => x != null && y != null)
    .map(([x, y], index) => `${index ? "L" : "M"}${px(x).toFixed(1)} ${py(y).toFixed(1)}`).join("");
  const element = (name, attributes) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const line = (number, points, dot) => {
    const group = element("g", { class: `line l${number}` });
    group.append(element("path", { d: path(points) }));
    if (dot[0] != null && dot[1] != null) group.append(element("circle", { class: "dot", cx: px(dot[0]), cy: py(dot[1]), r: 4 }));
    return group;
  };
  const text = value => value == null ? "–" : value.toFixed(3);
  const draw = () => {
    const { precision, recall, f1 } = classes[chooser.value], at = Number(slider.value), confidence = at / 100;
    const over = values => values.map((value, index) => [index / 100, value]);
    const upright = where => element("path", { class: "mark", d: `M${px(where / 100)} ${area.top}V${area.bottom}` });
    document.querySelector("[data-drawn=confidence]").replaceChildren(upright(best),
      ...[precision, recall, f1].map((values, index) => line(index, over(values), [confidence, values[at]])));
    document.querySelector("[data-drawn=pr]").replaceChildren(
      line(0, recall.map((value, index) => [value, precision[index]]), [recall[at], precision[at]]));
    document.getElementById("confidence-value").textContent = confidence.toFixed(2);
    document.getElementById("operating-values").textContent =
      `precision ${text(precision[at])} · recall ${text(recall[at])} · F1 ${text(f1[at])}${at === best ? " · best mean F1" : ""}`;
  };
  slider.addEventListener("input", draw);
  chooser.addEventListener("input", draw);
  document.getElementById("to-best").addEventListener("click", () => { slider.value = best; draw(); });
  draw();
}

// Images by mistake, by class, and by a cell of the confusion matrix.
const kinds = document.getElementById("case-kind"), labels = document.getElementById("case-class");
let cell = null;
const sift = () => {
  let shown = 0;
  for (const figure of document.querySelectorAll(".case")) {
    const fits = (!kinds.value || figure.dataset.kinds.split("|").includes(kinds.value))
      && (!labels.value || figure.dataset.classes.split(" ").includes(labels.value))
      && (!cell || figure.dataset.pairs.split(" ").includes(cell.dataset.pair));
    figure.hidden = !fits;
    shown += fits;
  }
  document.getElementById("case-count").textContent = `${shown} shown${cell ? ` · ${cell.querySelector("title").textContent}` : ""}`;
  document.getElementById("case-all").hidden = !(kinds.value || labels.value || cell);
};
if (kinds) {
  const choose = other => {
    cell?.classList.remove("kept");
    cell = other;
    cell?.classList.add("kept");
    sift();
  };
  kinds.addEventListener("input", sift);
  labels.addEventListener("input", sift);
  document.getElementById("case-all").addEventListener("click", () => { kinds.value = labels.value = ""; choose(null); });
  for (const one of document.querySelectorAll("[data-pair]")) one.addEventListener("click", () => {
    kinds.value = labels.value = "";
    choose(one === cell ? null : one);
    if (cell) document.getElementById("images").scrollIntoView({ behavior: "smooth" });
  });
  sift();
}
