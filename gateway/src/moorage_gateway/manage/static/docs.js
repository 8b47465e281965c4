"use strict";
// Reads openapi.json and makes a form of each operation. Texts become text nodes, never HTML.

const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node[name] = value;
  node.append(...children);
  return node;
};

const resolve = (schema, api) => {
  while (schema && schema.$ref) schema = schema.$ref.split("/").slice(1).reduce((place, name) => place[name], api);
  return schema || {};
};

const kindOf = (schema, api) => {
  const found = resolve(schema, api);
  if (found.anyOf) return found.anyOf.map((one) => kindOf(one, api)).filter((kind) => kind !== "null").join(" or ");
  if (found.const !== undefined) return JSON.stringify(found.const);
  return found.type || "object";
};

const bodyOf = (operation) => operation.requestBody?.content?.["application/json"]?.schema;

const bodyTable = (schema, api) => {
  const { properties = {}, required = [] } = resolve(schema, api);
  const rows = Object.entries(properties).map(([name, field]) => make("tr", {},
    make("td", {}, make("code", { textContent: name }), required.includes(name) ? " (required)" : ""),
    make("td", { textContent: kindOf(field, api) }),
    make("td", { textContent: field.description || "" })));
  return make("table", {}, make("tbody", {}, ...rows));
};

const send = async (method, path, inputs, body, output) => {
  const query = new URLSearchParams();
  let address = path;
  for (const { place, name, input } of inputs) {
    if (place === "path") address = address.replace(`{${name}}`, encodeURIComponent(input.value));
    else if (input.value !== "") query.append(name, input.value);
  }
  if (String(query)) address += `?${query}`;
  const headers = { Authorization: `Bearer ${document.getElementById("token").value.trim()}` };
  if (body) headers["Content-Type"] = "application/json";
  output.textContent = "…";
  try {
    const answer = await fetch(address, { method, headers, body: body ? body.value : undefined, credentials: "omit" });
    output.textContent = `${answer.status} ${answer.statusText}\n`;
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
      text += piece.value;
      output.textContent = `${answer.status} ${answer.statusText}\n${text}`;
    }
    if ((answer.headers.get("content-type") || "").includes("json"))
      output.textContent = `${answer.status} ${answer.statusText}\n${JSON.stringify(JSON.parse(text), null, 2)}`;
  } catch (error) {
    output.textContent += `\n${error}`;
  }
};

const operationForm = (method, path, operation, api) => {
  const inputs = (operation.parameters || []).map((parameter) => {
    const schema = resolve(parameter.schema, api);
    const input = make("input", { placeholder: schema.default === undefined ? "" : String(schema.default) });
    return { place: parameter.in, name: parameter.name, input, text: parameter.description || "" };
  });
  const schema = bodyOf(operation);
  const body = schema ? make("textarea", { value: "{\n}", spellcheck: false }) : null;
  const output = make("pre", { textContent: "" });
  const button = make("button", { type: "button", textContent: "Send" });
  button.addEventListener("click", () => send(method, path, inputs, body, output));
  return make("details", {},
    make("summary", {}, make("span", { className: "method", textContent: method }), make("code", { textContent: path }),
      ` ${operation.summary || ""}`),
    make("div", { className: "inside" },
      make("p", { textContent: operation.description || "" }),
      ...inputs.map(({ name, input, text }) => make("label", {}, name, input, make("small", { textContent: text }))),
      ...(body ? [bodyTable(schema, api), make("label", {}, "Body", body)] : []),
      button, output));
};

const show = async () => {
  const api = await (await fetch("/openapi.json", { credentials: "omit" })).json();
  document.getElementById("about").textContent = api.info.description;
  const groups = new Map();
  for (const [path, methods] of Object.entries(api.paths))
    for (const [method, operation] of Object.entries(methods)) {
      const tag = (operation.tags || ["other"])[0];
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(operationForm(method.toUpperCase(), path, operation, api));
    }
  const main = document.getElementById("operations");
  for (const [tag, forms] of groups) main.append(make("h2", { textContent: tag }), ...forms);
};

show().catch((error) => document.getElementById("operations").append(String(error)));
