const $ = id => document.getElementById(id);
const LOWEST = 0.05;                 // asked of the server once; the slider then works without it
const MARGIN = 24, MOST_SCALE = 8;   // CSS pixels around a picture, for labels; how much a small one is enlarged
const MOST_AT_ONCE = 4;              // images on their way at a time
const STAGES = {wait: "#8d7bc2", decode: "#3f9b8f", model: "#d4551f", rest: "#98938a"};
let pictures = [], shownNow = null, lit = -1, waiting = [], onTheWay = 0, samples = 0;

const hue = label => (label * 137.5 + 18) % 360;
const colour = label => `hsl(${hue(label)} 80% 42%)`;
const ink = label => hue(label) > 40 && hue(label) < 195 ? "#000" : "#fff";  // on yellow and green
const threshold = () => +$("confidence").value;
const found = picture => picture?.answer ? picture.answer.detections.filter(d => d.score >= threshold()) : [];
const headers = extra => $("token").value ? {...extra, Authorization: `Bearer ${$("token").value}`} : extra;
const pretty = value => JSON.stringify(value, null, 1).replace(/\[[^\[\]{}]*\]/g, list => list.replace(/\s+/g, " "));
const made = (tag, text = "", ...children) => {
  const element = document.createElement(tag);
  element.textContent = text;
  element.append(...children);
  return element;
};

function say(text, wrong = false) {
  $("summary").textContent = text;
  $("summary").classList.toggle("wrong", wrong);
}

async function explain(response) {
  if (response.status === 401) $("token-field").hidden = false;
  try {
    const {where, problem, remedy} = (await response.json()).error;
    return `${where}: ${problem}${remedy ? "; " + remedy : ""}`;
  } catch { return `The server answered ${response.status}.`; }
}

async function loadModels() {
  try {
    const response = await fetch("v1/models", {headers: headers({})});
    if (!response.ok) return say(await explain(response), true);
    $("model").replaceChildren(...(await response.json()).models.map(model => {
      const option = new Option(`${model.name} (${model.version})`, model.name);
      option.title = `${model.architecture}, ${model.image_size_px} px, ${model.classes.length} classes`;
      return option;
    }));
    if (!shownNow) say("Nothing sent yet. Images go to this server alone.");
  } catch { say("The server does not answer.", true); }
  showCode();
}

// --- pictures and their answers ---------------------------------------------------------------------------

async function take(files) {
  const chosen = [...files].filter(file => file.type.startsWith("image/"));
  const added = (chosen.length ? chosen : [...files].slice(0, 1)).map(file => ({file, url: URL.createObjectURL(file)}));
  if (!added.length) return;
  pictures.push(...added);
  show(added[0]);
  for (const picture of added) ask(picture);
}

function ask(picture) {
  picture.answer = picture.wrong = null;
  picture.turn = (picture.turn || 0) + 1;
  waiting.push([picture, picture.turn]);
  next();
}

async function next() {
  if (onTheWay >= MOST_AT_ONCE || !waiting.length) return;
  const [picture, turn] = waiting.shift();
  onTheWay++;
  await detect(picture, turn);
  onTheWay--;
  next();
}

async function detect(picture, turn) {
  const {file} = picture;
  const refuse = text => { if (turn === picture.turn) { picture.wrong = text; show(shownNow); } };
  try { picture.bitmap ||= await createImageBitmap(file); } catch { return refuse(`${file.name || "This"} is no image that can be shown.`); }
  if (picture === shownNow) show(picture);
  const query = new URLSearchParams({confidence: LOWEST});
  if ($("model").value) query.set("model", $("model").value);
  const start = performance.now();
  try {
    const response = await fetch(`v1/detect?${query}`,
      {method: "POST", headers: headers({"Content-Type": file.type || "application/octet-stream"}), body: file});
    if (!response.ok) return refuse(await explain(response));
    const answer = await response.json();
    if (turn !== picture.turn) return;  // asked again meanwhile
    picture.answer = answer;
    picture.total_ms = performance.now() - start;
    show(shownNow);
  } catch { refuse("The server does not answer."); }
}

// --- what is seen -----------------------------------------------------------------------------------------

function show(picture) {
  if (picture !== shownNow) lit = -1;
  shownNow = picture;
  $("stage").classList.toggle("filled", Boolean(picture?.bitmap));
  document.body.classList.toggle("shown", Boolean(picture?.bitmap));
  showStrip();
  draw();
  list();
  showCode();
}

function showStrip() {
  $("strip").hidden = pictures.length < 2;
  $("strip").replaceChildren(...pictures.map(picture => {
    const image = made("img"), button = made("button", "", image);
    image.src = picture.url;
    image.alt = picture.file.name;
    if (picture.wrong) button.append(made("b", "!"));
    else if (picture.answer) button.append(made("b", found(picture).length));
    button.title = picture.file.name;
    button.setAttribute("aria-current", picture === shownNow);
    button.onclick = () => show(picture);
    return button;
  }));
}

function draw() {
  $("threshold").textContent = threshold().toFixed(2);
  const bitmap = shownNow?.bitmap;
  if (!bitmap) return;
  const canvas = $("canvas"), pen = canvas.getContext("2d"), dots = devicePixelRatio || 1;
  const room = [$("stage").clientWidth - 14 - 2 * MARGIN, Math.max(260, innerHeight - 210) - 2 * MARGIN];
  const scale = Math.min(room[0] / bitmap.width, room[1] / bitmap.height, MOST_SCALE);
  const size = [bitmap.width * scale, bitmap.height * scale];
  [canvas.width, canvas.height] = size.map(side => Math.round((side + 2 * MARGIN) * dots));
  [canvas.style.width, canvas.style.height] = size.map(side => `${side + 2 * MARGIN}px`);
  canvas.dataset.scale = scale * dots;      // device pixels for one of the picture, which begins at data-margin
  canvas.dataset.margin = MARGIN * dots;
  pen.setTransform(dots, 0, 0, dots, 0, 0);
  pen.imageSmoothingEnabled = scale < 3;
  pen.drawImage(bitmap, MARGIN, MARGIN, ...size);
  const boxes = found(shownNow).map(d => [0, 1, 2, 3].map(side => d.box_xyxy[side] * scale + MARGIN));
  pen.font = "600 12.5px system-ui, sans-serif";
  pen.textBaseline = "middle";
  const labels = places(found(shownNow), boxes, pen, [size[0] + 2 * MARGIN, size[1] + 2 * MARGIN]);
  for (const [index, {label}] of [...found(shownNow).entries()].reverse()) {
    const [x1, y1, x2, y2] = boxes[index];
    pen.globalAlpha = lit >= 0 && lit !== index ? .25 : 1;
    pen.strokeStyle = colour(label);
    pen.lineWidth = lit === index ? 3.5 : 2;
    pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
  }
  for (const {index, text, box: [x1, y1, x2, y2]} of labels) {
    pen.globalAlpha = lit >= 0 && lit !== index ? .25 : 1;
    pen.fillStyle = colour(found(shownNow)[index].label);
    pen.fillRect(x1, y1, x2 - x1, y2 - y1);
    pen.fillStyle = ink(found(shownNow)[index].label);
    pen.fillText(text, x1 + 5, (y1 + y2) / 2 + .5);
  }
  pen.globalAlpha = 1;
}

// Where labels cover no object, best ones first; one without such a place is seen when its object is pointed at.
function places(detections, boxes, pen, [width, height]) {
  const common = (a, b) => Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0])) * Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
  const placed = [], tall = 18;
  const order = [...detections.keys()].sort((a, b) => (b === lit) - (a === lit));
  for (const index of order) {
    const text = `${detections[index].name} ${detections[index].score.toFixed(2)}`, wide = pen.measureText(text).width + 10;
    const [x1, y1, x2, y2] = boxes[index], gap = 2;
    const corners = [[x1, y1 - tall - gap], [x2 - wide, y1 - tall - gap], [x1, y2 + gap], [x2 - wide, y2 + gap],
                     [x2 + gap, y1], [x1 - wide - gap, y1], [x2 + gap, y2 - tall], [x1 - wide - gap, y2 - tall]];
    let best = null;
    for (const [x, y] of corners) {
      const left = Math.max(0, Math.min(x, width - wide)), box = [left, y, left + wide, y + tall];
      if (y < 0 || y + tall > height) continue;
      const cost = [...boxes, ...placed.map(label => label.box)].reduce((sum, other) => sum + common(box, other), 0);
      if (!best || cost < best.cost) best = {index, text, box, cost};
      if (!cost) break;
    }
    if (best && (best.cost < .15 * wide * tall || index === lit)) placed.push(best);
  }
  return placed;
}

function list() {
  const picture = shownNow, answer = picture?.answer, ms = value => `${value.toFixed(value < 10 ? 1 : 0)} ms`;
  $("answer").textContent = answer ? pretty({...answer, detections: found(picture)}) : "No answer yet.";
  $("stages").hidden = !answer;
  if (picture?.wrong) say(picture.wrong, true);
  else if (picture && !answer) say("Looking…");
  if (!answer) return $("list").replaceChildren();
  const objects = found(picture);
  say(`${objects.length} ${objects.length === 1 ? "object" : "objects"} in ${ms(picture.total_ms)} · `
      + `${answer.width_px} × ${answer.height_px}${pictures.length > 1 ? " · " + picture.file.name : ""}`);
  const known = Object.entries(answer.stages_ms), rest = picture.total_ms - known.reduce((sum, [, value]) => sum + value, 0);
  const stages = [...known, ["rest", Math.max(0, rest)]], bar = made("div"), titles = {
    wait: "in the queue", decode: "decoding and fitting", model: `the model, ${answer.batch_size} in the batch`, rest: "network and gateway"};
  bar.className = "bar";
  $("stages").replaceChildren(bar, ...stages.map(([stage, value]) => {
    const swatch = made("i"), part = made("div"), name = stage === "rest" ? "network" : stage;
    swatch.style.background = part.style.background = STAGES[stage];
    part.style.flex = `${value} 0 0`;
    bar.append(part);
    const entry = made("span", "", swatch, `${name} ${ms(value)}`);
    entry.title = titles[stage];
    return entry;
  }));
  $("list").replaceChildren(...objects.map((detection, index) => {
    const swatch = made("i"), item = made("li", "", swatch, made("span", detection.name), made("em", detection.score.toFixed(2)));
    swatch.style.background = colour(detection.label);
    item.title = detection.box_xyxy.map(value => value.toFixed(1)).join(", ");
    item.onmouseenter = () => { lit = index; draw(); };
    item.onmouseleave = () => { lit = -1; draw(); };
    return item;
  }));
}

// --- commands ---------------------------------------------------------------------------------------------

function showCode() {
  const base = new URL(".", location.href).href.replace(/\/$/, ""), model = $("model").value, name = "image.jpg";
  const query = new URLSearchParams({...(model ? {model} : {}), confidence: threshold()}), guarded = Boolean($("token").value) || !$("token-field").hidden;
  const arguments_ = [...query].map(([key, value]) => `"${key}": ${key === "model" ? JSON.stringify(value) : value}`).join(", ");
  $("curl").textContent = `curl ${guarded ? '-H "Authorization: Bearer $TOKEN" ' : ""}-F file=@${name} '${base}/v1/detect?${query}'`;
  $("python").textContent = `import os, requests\n\nanswer = requests.post(\n    "${base}/v1/detect", params={${arguments_}},\n`
    + (guarded ? `    headers={"Authorization": f"Bearer {os.environ['TOKEN']}"},\n` : "") + `    files={"file": open("${name}", "rb")})\n`
    + `answer.raise_for_status()\nfor found in answer.json()["detections"]:\n    print(found["name"], found["score"], found["box_xyxy"])`;
  if (!guarded) $("python").textContent = $("python").textContent.replace("import os, requests", "import requests");
  $("own").textContent = `${guarded ? "import os\n\n" : ""}from yolov7_ray import Endpoint\n\ndetect = Endpoint("${base}"${guarded ? ", os.environ[\"TOKEN\"]" : ""}`
    + `${model ? `, model=${JSON.stringify(model)}` : ""})\ndetect("${name}", confidence=${threshold()}).save("drawn.png")`;
}

async function copy(button) {
  const pre = $(button.dataset.of);
  try { await navigator.clipboard.writeText(pre.textContent); } catch {  // without TLS browsers give no clipboard
    getSelection().selectAllChildren(pre);
    document.execCommand("copy");
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

async function sample() {
  const seed = ++samples;
  try {
    const response = await fetch(`sample.jpg?seed=${seed}`);
    take([new File([await response.blob()], `sample-${seed}.jpg`, {type: "image/jpeg"})]);
  } catch { say("The server does not answer.", true); }
}

// --- events -----------------------------------------------------------------------------------------------

const tabs = [...document.querySelectorAll("[role=tab]")];
for (const tab of tabs) tab.onclick = () => {
  for (const each of tabs) {
    each.setAttribute("aria-selected", each === tab);
    $(each.getAttribute("aria-controls")).hidden = each !== tab;
  }
};
addEventListener("dragover", event => { event.preventDefault(); $("stage").classList.add("over"); });
addEventListener("dragleave", event => { if (!event.relatedTarget) $("stage").classList.remove("over"); });
addEventListener("drop", event => {
  event.preventDefault(); $("stage").classList.remove("over"); take(event.dataTransfer.files); });
addEventListener("paste", event => take(event.clipboardData.files));
addEventListener("resize", draw);
for (const button of document.querySelectorAll(".sample")) button.onclick = event => { event.stopPropagation(); sample(); };
for (const button of document.querySelectorAll(".copy")) button.onclick = () => copy(button);
$("invite").onclick = $("choose").onclick = () => $("file").click();
$("stage").onkeydown = event => {
  if (event.target === $("stage") && (event.key === "Enter" || event.key === " ")) $("file").click(); };
$("file").onchange = event => { take(event.target.files); event.target.value = ""; };
$("confidence").oninput = () => { lit = -1; show(shownNow); };
$("model").onchange = () => { pictures.forEach(ask); show(shownNow); };
$("token").onchange = () => { loadModels(); pictures.filter(picture => picture.wrong).forEach(ask); };
loadModels();
