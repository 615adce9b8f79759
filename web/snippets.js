/** The lines of code that give an answer of the page. */

/** @import {Answer} from "./state.js" */

/** @typedef {{url: string, hasKey: boolean, model: string, name: string, answer: Answer}} Request */

/**
 * Return the same request as a command, in Python and in JavaScript, and its answer. A key is read from the environment.
 * @param {Request} request
 * @returns {{language: string, lines: string}[]}
 */
export function snippets(request) {
  const { heatmap: _, ...answer } = request.answer;
  return [
    { language: "curl", lines: curl(request) },
    { language: "Python", lines: python(request) },
    { language: "JavaScript", lines: javaScript(request) },
    { language: "JSON", lines: JSON.stringify(answer, null, 2) },
  ];
}

/** @param {Request} request */
function curl(request) {
  const key = request.hasKey ? '-H "x-api-key: $LITELENS_API_KEY" ' : "";
  return `curl ${key}-H 'Content-Type: ${typeOf(request)}' --data-binary @${quoted(request.name)} ${quoted(urlOf(request))}`;
}

/** @param {Request} request */
function python({ url, hasKey, model, name }) {
  const imports = hasKey ? ["import os", "from pathlib import Path"] : ["from pathlib import Path"];
  const key = hasKey ? ', api_key=os.environ["LITELENS_API_KEY"]' : "";
  const chosen = model ? `, model=${JSON.stringify(model)}` : "";
  return [
    ...imports,
    "",
    "from litelens_client import Client",
    "",
    `client = Client(${JSON.stringify(url)}${key})`,
    `answer = client.classify(Path(${JSON.stringify(name)})${chosen})`,
    "print(answer.predictions[0].label)",
  ].join("\n");
}

/** @param {Request} request */
function javaScript(request) {
  const key = request.hasKey ? ', "x-api-key": process.env.LITELENS_API_KEY' : "";
  return [
    'import { readFile } from "node:fs/promises";',
    "",
    `const response = await fetch(${JSON.stringify(urlOf(request))}, {`,
    '  method: "POST",',
    `  headers: { "content-type": "${typeOf(request)}"${key} },`,
    `  body: await readFile(${JSON.stringify(request.name)}),`,
    "});",
    "const { predictions } = await response.json();",
    "console.log(predictions[0].label);",
  ].join("\n");
}

/** @param {Request} request */
function urlOf({ url, model }) {
  return `${url}/v1/classify${model ? `?${new URLSearchParams({ model })}` : ""}`;
}

/** @param {Request} request */
function typeOf({ answer }) {
  return `image/${answer.image.format.toLowerCase()}`;
}

/** Quote a word for a shell. @param {string} word */
function quoted(word) {
  return `'${word.replaceAll("'", "'\\''")}'`;
}
