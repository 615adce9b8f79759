/** The API over HTTP. Every error is a Failure, with a code of the API or of this page. */

import { settings } from "./settings.js";

/** @import {Problem, Answer, Choice, Model, Turn} from "./state.js" */

/** Pauses in seconds before a throttled request is sent again; after the last one it fails. */
const RETRY_PAUSES = [1, 2, 4, 8];

/** Seconds between polls for a result: the first, the longest, and in total. */
const POLL = { first: 0.5, most: 4, total: 180 };

/** The most images, and bytes of images, of a request. */
const MOST_IMAGES = 16;
const MOST_BYTES = 4_000_000;

/** Origins that the page's Content-Security-Policy blocks. @type {Set<string>} */
const blocked = new Set();
document.addEventListener("securitypolicyviolation", (event) => {
  if (event.effectiveDirective === "connect-src" && URL.canParse(event.blockedURI)) {
    blocked.add(new URL(event.blockedURI).origin);
  }
});

export class Failure extends Error {
  /** @param {Problem} problem @param {number} retryAfter the seconds that the API asks to wait */
  constructor(problem, retryAfter = 0) {
    super(problem.detail);
    this.problem = problem;
    this.retryAfter = retryAfter;
  }
}

/**
 * Create a failure that this page detects itself, with one of its own codes.
 * @param {string} code
 * @returns {Failure}
 */
export function failure(code) {
  return new Failure({ code, detail: "", status: 0, requestId: null });
}

/** Return the problem of an error. @param {unknown} error @returns {Problem} */
export function problemOf(error) {
  if (error instanceof Failure) return error.problem;
  console.error(error);
  return { code: "page_error", detail: String(error), status: 0, requestId: null };
}

/**
 * @typedef {{
 *   signal?: AbortSignal,
 *   onSent?: (share: number) => void,
 *   onThrottled?: (seconds: number) => void,
 * }} Listeners `onSent` gets the sent share of the body (0 to 1), `onThrottled` the seconds until the next attempt
 */

/** Fetch the chosen model. @returns {Promise<Model>} */
export async function fetchModel() {
  const { model } = settings();
  const path = model ? `/v1/model?model=${encodeURIComponent(model)}` : "/v1/model";
  return checkMembers(["manifest", "links", "limits"], parse(await fetchText(path)));
}

/** @param {string} path @returns {Promise<Choice>} */
export async function fetchModels(path) {
  const answer = checkMembers(["default", "models"], parse(await fetchText(path)));
  /** @type {{name: string, error?: string}[]} */
  const models = answer.models;
  return { usual: answer.default, names: models.filter(({ error }) => error === undefined).map(({ name }) => name) };
}

/**
 * GET a path of the API. The response is revalidated, so that the key is checked even if it is cached.
 * @param {string} path
 * @param {AbortSignal} [signal]
 * @returns {Promise<string>}
 */
export function fetchText(path, signal) {
  return retryThrottled(
    async () => {
      const { ok, status, text } = await get(urlOf(path), signal);
      if (!ok) throw new Failure(problemOfResponse(status, text));
      return text;
    },
    { signal },
  );
}

/**
 * @param {string} url
 * @param {AbortSignal} [signal]
 * @returns {Promise<{ok: boolean, status: number, text: string}>}
 */
async function get(url, signal) {
  try {
    const response = await fetch(url, { headers: keyHeader(), cache: "no-cache", signal });
    return { ok: response.ok, status: response.status, text: await response.text() };
  } catch {
    throw signal?.aborted ? failure("cancelled") : await unreachable(url);
  }
}

/**
 * @param {Blob} image of a type that the API takes
 * @param {Record<string, string>} options of the query
 * @param {Listeners} listeners
 * @returns {Promise<Answer>}
 */
export async function classify(image, options, listeners) {
  const query = new URLSearchParams({ ...chosenModel(), ...options });
  return checkMembers(["image", "predictions"], await post(`/v1/classify?${query}`, image, listeners));
}

/**
 * Return the number of images, at the beginning of these sizes in bytes, that one request can have; at least 1.
 * @param {readonly number[]} sizes
 */
export function fitting(sizes) {
  let bytes = 0;
  const count = sizes.slice(0, MOST_IMAGES).findIndex((size) => (bytes += size) > MOST_BYTES);
  return count < 0 ? Math.min(sizes.length, MOST_IMAGES) : Math.max(1, count);
}

/**
 * Classify several images in one request.
 * @param {readonly Blob[]} images of types that the API takes
 * @param {Listeners} listeners
 * @returns {Promise<(Answer | Failure)[]>} the answer or the failure of each
 */
export async function classifyMany(images, listeners) {
  const form = new FormData();
  for (const image of images) form.append("image", image);
  const query = new URLSearchParams(chosenModel());
  const { results, model } = checkMembers(["results", "model"], await post(`/v1/classify?${query}`, form, listeners));
  if (results.length !== images.length) throw failure("not_litelens");
  return results.map((/** @type {any} */ { status, problem, ...answer }) =>
    status === "failed" ? new Failure(problemIn(problem)) : { ...answer, model },
  );
}

/**
 * Ask a question about an image; returns the answer and the conversation with it.
 * @param {string} image in base64
 * @param {string} question
 * @param {Turn[]} turns
 * @param {AbortSignal} signal
 * @returns {Promise<{answer: string, turns: Turn[], describe_model: string}>}
 */
export async function describe(image, question, turns, signal) {
  const body = json({ ...chosenModel(), image, question, turns });
  return checkMembers(["answer", "turns"], await post("/v1/describe", body, { signal }));
}

/**
 * Upload an image to S3 with a form, and wait for its result.
 * @param {Blob} image
 * @param {Listeners & {onUploaded: () => void}} listeners
 * @returns {Promise<Answer>}
 */
export async function upload(image, listeners) {
  const made = await post("/v1/uploads", json({ content_type: image.type }), { ...listeners, onSent: undefined });
  const form = checkMembers(["id", "url", "fields"], made);
  const body = new FormData();
  for (const [name, value] of Object.entries(form.fields)) body.append(name, value);
  body.append("file", image);
  const sent = await send(form.url, body, {}, listeners);
  if (sent.status >= 300) throw failure("upload_refused");
  listeners.onUploaded();
  return awaitResult(form.id, listeners.signal);
}

/**
 * @param {string} id
 * @param {AbortSignal | undefined} signal
 * @returns {Promise<Answer>}
 */
async function awaitResult(id, signal) {
  const started = performance.now();
  for (let pause = POLL.first; ; pause = Math.min(pause * 1.5, POLL.most)) {
    const { result, model } = parse(await fetchText(`/v1/results/${id}`, signal));
    if (result.status === "done") return { ...result, model };
    if (result.status === "failed") throw new Failure(problemIn(result.problem));
    if (performance.now() - started > POLL.total * 1000) throw failure("result_late");
    await sleep(pause, signal);
  }
}

/**
 * @param {string} path
 * @param {Blob | FormData} body
 * @param {Listeners} listeners
 * @returns {Promise<any>}
 */
function post(path, body, listeners) {
  return retryThrottled(async () => {
    // The browser sets the type of a form, with its boundary.
    /** @type {Record<string, string>} */
    const type = body instanceof Blob ? { "content-type": body.type } : {};
    const answer = await send(urlOf(path), body, { ...keyHeader(), ...type }, listeners);
    if (answer.status < 300) return parse(answer.text);
    throw new Failure(problemOfResponse(answer.status, answer.text), Number(answer.retryAfter) || 0);
  }, listeners);
}

/**
 * Retry a request after pauses while the API throttles it.
 * @template T
 * @param {() => Promise<T>} attempt
 * @param {Listeners} listeners
 * @returns {Promise<T>}
 */
async function retryThrottled(attempt, { signal, onThrottled }) {
  for (const least of RETRY_PAUSES) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof Failure) || error.problem.code !== "too_many_requests") throw error;
      const seconds = Math.max(least, error.retryAfter);
      onThrottled?.(seconds);
      // Jitter, so that requests that were throttled together do not retry together.
      await sleep(seconds * (1 + Math.random() / 4), signal);
    }
  }
  return attempt();
}

/**
 * POST with XMLHttpRequest, because fetch does not report upload progress.
 * @param {string} url
 * @param {XMLHttpRequestBodyInit} body
 * @param {Record<string, string>} headers
 * @param {Listeners} listeners
 * @returns {Promise<{status: number, text: string, retryAfter: string | null}>}
 */
function send(url, body, headers, { signal, onSent }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const abort = () => request.abort();
    const settle = (/** @type {() => void} */ end) => {
      signal?.removeEventListener("abort", abort);
      end();
    };
    request.open("POST", url);
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    if (onSent) request.upload.onprogress = ({ loaded, total }) => onSent(total ? loaded / total : 0);
    request.onload = () =>
      settle(() =>
        resolve({
          status: request.status,
          text: request.responseText,
          // Read only after a 429: reading a header that is not exposed logs an error in the console.
          retryAfter: request.status === 429 ? request.getResponseHeader("retry-after") : null,
        }),
      );
    request.onerror = () => settle(() => void unreachable(url).then(reject));
    request.onabort = () => settle(() => reject(failure("cancelled")));
    if (signal?.aborted) return reject(failure("cancelled"));
    signal?.addEventListener("abort", abort);
    request.send(body);
  });
}

/** @param {string} url @returns {Promise<Failure>} */
async function unreachable(url) {
  // The browser reports a policy violation after the request has failed.
  await new Promise((resolve) => setTimeout(resolve));
  if (blocked.has(new URL(url).origin)) return failure("endpoint_blocked");
  return failure(navigator.onLine ? "unreachable" : "offline");
}

/** @param {string} text @returns {any} */
function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw failure("not_litelens");
  }
}

/**
 * Return a document if it has these members; otherwise the endpoint is not litelens.
 * @param {string[]} members
 * @param {any} document
 * @returns {any}
 */
function checkMembers(members, document) {
  if (members.every((member) => document?.[member] !== undefined)) return document;
  throw failure("not_litelens");
}

/** @param {number} status @param {string} text @returns {Problem} */
function problemOfResponse(status, text) {
  const parsed = isJson(text) ? JSON.parse(text) : null;
  if (typeof parsed?.code === "string") return problemIn(parsed);
  // API Gateway and CloudFront have error responses of their own.
  const code = { 403: "forbidden", 413: "request_too_large", 429: "too_many_requests" }[status];
  return { code: code ?? (status >= 500 ? "internal_error" : "not_litelens"), detail: "", status, requestId: null };
}

/** @param {{code: string, detail: string, status: number, request_id: string}} document @returns {Problem} */
function problemIn(document) {
  const { code, detail, status, request_id: requestId } = document;
  return { code, detail, status, requestId: requestId ?? null };
}

/** @param {string} path */
function urlOf(path) {
  return (settings().endpoint || location.origin) + path;
}

/** The option that names the chosen model. @returns {Record<string, string>} */
function chosenModel() {
  const { model } = settings();
  return model ? { model } : {};
}

/** @returns {Record<string, string>} */
function keyHeader() {
  const { key } = settings();
  return key ? { "x-api-key": key } : {};
}

/** @param {unknown} document */
function json(document) {
  return new Blob([JSON.stringify(document)], { type: "application/json" });
}

/** @param {string} text */
function isJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** @param {number} seconds @param {AbortSignal} [signal] @returns {Promise<void>} */
function sleep(seconds, signal) {
  return new Promise((resolve, reject) => {
    const cancel = () => {
      clearTimeout(timer);
      reject(failure("cancelled"));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", cancel);
      resolve();
    }, seconds * 1000);
    signal?.addEventListener("abort", cancel, { once: true });
  });
}
