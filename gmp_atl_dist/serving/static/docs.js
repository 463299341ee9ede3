// Shows openapi.json. It loads nothing from elsewhere.
import { element } from "./drawing.js";

const $ = (id) => document.getElementById(id);

function table(heads, rows) {
  const head = element("tr", {}, ...heads.map((text) => element("th", {}, text)));
  const body = rows.map((cells) => element("tr", {}, ...cells.map((cell) => element("td", {}, ...[cell].flat()))));
  return element("div", { class: "scroll" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...body)));
}

const code = (text) => element("code", {}, text);

// The description of an error is "Codes: too_long, too_large".
function codesOf(description = "") {
  return description.startsWith("Codes: ") ? description.slice(7).split(", ") : [];
}

function typeOf(schema) {
  if (!schema) return "any";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(typeOf).filter((name) => name !== "null").join(" or ");
  if (schema.type === "array") return schema.prefixItems ? "pair" : `list of ${typeOf(schema.items)}`;
  if (schema.type === "object" && schema.additionalProperties) return `map to ${typeOf(schema.additionalProperties)}`;
  return schema.enum ? schema.enum.join(" or ") : schema.type || "any";
}

function fieldsOf(schema) {
  return table(
    ["field", "type", "meaning"],
    Object.entries(schema.properties || {}).map(([name, one]) => [code(name), typeOf(one), one.description || ""]),
  );
}

function endpoint(path, method, one) {
  const parts = [
    element("h2", {}, element("span", { class: "method" }, method.toUpperCase()), code(path)),
    element("p", {}, one.description || one.summary || ""),
  ];
  if (one.parameters?.length) {
    parts.push(
      table(
        ["parameter", "type", "meaning"],
        one.parameters.map((p) => [code(p.name), typeOf(p.schema), p.description || p.schema.description || ""]),
      ),
    );
  }
  if (one.requestBody) {
    parts.push(element("p", {}, "Body: ", Object.keys(one.requestBody.content).join(", or ")));
  }
  parts.push(
    table(
      ["status", "answer", "codes"],
      Object.entries(one.responses).map(([status, r]) => [
        status,
        Object.values(r.content || {}).map((c) => typeOf(c.schema)).join(", ") || r.description,
        codesOf(r.description).flatMap((name, i) => (i ? [", ", code(name)] : [code(name)])),
      ]),
    ),
  );
  return element("section", { class: "card" }, ...parts);
}

async function show() {
  const api = await (await fetch("openapi.json")).json();
  $("title").textContent = `${api.info.title} ${api.info.version}`;
  $("summary").textContent = api.info.summary || "";
  $("description").textContent = api.info.description || "";
  const here = new URL(".", location.href).href;
  $("example").textContent =
    `curl --data-binary @speech.wav '${here}v1/predict?window=3&hop=1' \\\n` +
    `  -H 'Content-Type: audio/wav' -H 'Authorization: Bearer TOKEN'`;
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, one] of Object.entries(methods)) $("endpoints").append(endpoint(path, method, one));
  }
  for (const [name, schema] of Object.entries(api.components?.schemas || {})) {
    if (schema.properties) {
      $("endpoints").append(element("section", { class: "card" }, element("h2", {}, name), element("p", {}, schema.description || ""), fieldsOf(schema)));
    }
  }
}

show();
