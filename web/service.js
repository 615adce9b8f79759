/** The connection to the API. */

import { fetchModel, fetchModels, problemOf } from "./api.js";
import { saveSettings, settings } from "./settings.js";
import { current, update } from "./state.js";

/** @import {Model, Problem} from "./state.js" */

/** Codes of a service that may be back at any time. */
export const UNREACHABLE = new Set(["offline", "unreachable"]);

/** Codes of problems with the service, not with a photo. */
export const CONNECTION = new Set([...UNREACHABLE, "endpoint_blocked", "forbidden", "not_litelens", "unauthorized"]);

/** Seconds between attempts to reach the service: the first, and the longest. */
const PAUSE = { first: 2, most: 30 };

/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;
let pause = PAUSE.first;
let isProbing = false;

/** Called when the service can be used after it could not. @type {() => void} */
let onBack = () => {};

/** The number of requests, so that a late response of an earlier endpoint is ignored. */
let requests = 0;

/** @type {Promise<void>} */
let connecting = Promise.resolve();

/** Fetch the model from the configured endpoint. @returns {Promise<void>} resolved after success or failure */
export function connect() {
  update({ service: { stage: "loading" } });
  connecting = loadModel();
  return connecting;
}

/** Fetch the model again, without a sign of it on the page, to learn whether the service can be reached. */
export async function probe() {
  if (isProbing || current().service.stage !== "ready") return;
  isProbing = true;
  try {
    await fetchModel();
  } catch (error) {
    if (UNREACHABLE.has(problemOf(error).code)) fail(problemOf(error));
  } finally {
    isProbing = false;
  }
}

/** Reconnect by itself while the service cannot be reached. @param {() => void} whenBack called when it can be again */
export function watch(whenBack) {
  onBack = whenBack;
  window.addEventListener("online", reconnect);
  // A tab in the background does not ask.
  document.addEventListener("visibilitychange", () => document.hidden || reconnect());
}

function reconnect() {
  const { service } = current();
  if (service.stage === "failed" && UNREACHABLE.has(service.problem.code)) connecting = loadModel();
}

/** @param {Problem} problem */
function fail(problem) {
  update({ service: { stage: "failed", problem } });
  clearTimeout(timer);
  if (!UNREACHABLE.has(problem.code)) return;
  timer = setTimeout(reconnect, pause * 1000);
  pause = Math.min(pause * 2, PAUSE.most);
}

/** Wait for the last connect(). */
export function connected() {
  return connecting;
}

async function loadModel() {
  const request = ++requests;
  try {
    const model = await chosenOrDefault();
    if (request !== requests) return;
    pause = PAUSE.first;
    update({ service: { stage: "ready", model }, known: knownOf(model) });
    void loadModels(model.links.models, request);
    onBack();
  } catch (error) {
    if (request === requests) fail(problemOf(error));
  }
}

/** @param {Model} model */
function knownOf({ manifest }) {
  return { threshold: manifest.threshold, classes: manifest.labels.length };
}

/**
 * Fetch the names of the models, if there are several. Without them, the page works with the chosen one.
 * @param {string | undefined} path
 * @param {number} request
 */
async function loadModels(path, request) {
  const models = path ? await fetchModels(path).catch(() => null) : null;
  if (request === requests) update({ models });
}

/** Fetch the chosen model, or the default one if the chosen one does not exist any more. @returns {Promise<Model>} */
async function chosenOrDefault() {
  try {
    return await fetchModel();
  } catch (error) {
    if (!settings().model || problemOf(error).code !== "model_not_found") throw error;
    saveSettings({ model: "" });
    return fetchModel();
  }
}
