const made = (tag, text = "", ...children) => {
  const element = document.createElement(tag);
  element.textContent = text;
  element.append(...children);
  return element;
};
const kind = schema => schema.enum ? schema.enum.join(" | ") : schema.anyOf ? schema.anyOf.map(kind).join(" | ")
  : [schema.type, schema.minimum !== undefined ? `${schema.minimum} to ${schema.maximum}` : ""].join(" ").trim();
const table = rows => made("table", "", ...rows.map(cells => made("tr", "", ...cells.map(cell =>
  cell instanceof Node ? made("td", "", cell) : made("td", cell)))));
const base = new URL(".", location.href).href.replace(/\/$/, "");
const pretty = value => JSON.stringify(value, null, 1).replace(/\[[^\[\]{}]*\]/g, list => list.replace(/\s+/g, " "));
const quoted = text => `'${text.replaceAll("'", "'\\''")}'`;

function command(path, method, route) {
  const name = route.parameters?.find(parameter => parameter.name === "name")?.schema.examples?.[0];
  const parts = ["curl"], content = route.requestBody?.content || {};
  if (route.security) parts.push('-H "Authorization: Bearer $TOKEN"');
  const json = content["application/json"];
  if (content["multipart/form-data"]) parts.push("-F file=@image.jpg");
  else if (json?.example !== undefined) parts.push("-H 'Content-Type: application/json' -d", quoted(JSON.stringify(json.example)));
  else if (method === "post") parts.push("-X POST");
  return [...parts, quoted(base + path.replace("{name}", name))].join(" ");
}

function described(path, method, route) {
  const article = made("article", "", made("h2", "", made("b", method.toUpperCase()), path));
  if (route.description) article.append(made("p", route.description));
  const rows = (route.parameters || []).map(({name, schema, description, in: place}) => [made("code", name), `${kind(schema)}, in ${place}`,
    [description, schema.default !== undefined ? `default ${schema.default}` : ""].filter(Boolean).join("; ")]);
  if (rows.length) article.append(made("h3", "Parameters"), table(rows));
  if (route.requestBody) {
    const {content, description} = route.requestBody;
    article.append(made("h3", "Body"), made("p", [Object.keys(content).join(", "), description].filter(Boolean).join(": ")));
  }
  article.append(made("h3", "Example"), made("pre", command(path, method, route)));
  const example = route.responses[200]?.content?.["application/json"]?.example;
  if (example !== undefined) article.append(made("pre", pretty(example)));
  article.append(made("h3", "Answers"), table(Object.entries(route.responses).map(([status, {description}]) =>
    [made("code", status), description])));
  return article;
}

document.getElementById("curl").textContent = `curl -F file=@image.jpg ${base}/v1/detect
curl -F file=@image.jpg "${base}/v1/detect?format=image" -o drawn.png`;
fetch("openapi.json").then(response => response.json()).then(api => {
  document.getElementById("title").textContent = api.info.title;
  document.getElementById("about").textContent = api.info.description;
  for (const [path, methods] of Object.entries(api.paths)) for (const [method, route] of Object.entries(methods))
    document.getElementById("paths").append(described(path, method, route));
});
