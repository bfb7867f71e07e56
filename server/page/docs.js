/**
 * Writes out the server's OpenAPI document.
 *
 * @module
 */
const log = document.getElementById("log");

function element(name, text, parent = log) {
  const made = document.createElement(name);
  made.textContent = text;
  parent.append(made);
  return made;
}

function typeOf(schema) {
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" | ");
  if (schema.type === "array") return `${typeOf(schema.items ?? {})}[]`;
  const range = schema.minimum === undefined && schema.maximum === undefined
    ? ""
    : ` (${schema.minimum ?? ""} … ${schema.maximum ?? ""})`;
  return `${[schema.type ?? "any"].flat().join(" | ")}${range}`;
}

const response = await fetch("/openapi.json");
const api = await response.json();
if (!response.ok) {
  element("p", api.error.message);
} else {
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      element("h2", `${method.toUpperCase()} ${path}`);
      if (operation.summary) element("p", operation.summary);
      const body = operation.requestBody?.content["application/json"]?.schema;
      if (body) element("p", `Body: ${typeOf(body)}`);
    }
  }
  for (const [name, schema] of Object.entries(api.components.schemas)) {
    if (!schema.properties) continue;
    element("h3", name);
    const list = element("ul", "");
    for (const [field, inner] of Object.entries(schema.properties)) {
      const item = element("li", "", list);
      element("code", field, item);
      item.append(`: ${typeOf(inner)}${schema.required?.includes(field) ? ", required" : ""}`);
      if (inner.description) item.append(`; ${inner.description}`);
    }
  }
}
