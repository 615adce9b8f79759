/** The connection to the API. */

import { fetchModel, fetchModels, problemOf } from "./api.js";
import { saveSettings, settings } from "./settings.js";
import { update } from "./state.js";

/** @import {Model} from "./state.js" */

/** The number of requests, so that a late response of an earlier endpoint is ignored. */
let requests = 0;

/** @type {Promise<void>} */
let connecting = Promise.resolve();

/** Fetch the model from the configured endpoint. @returns {Promise<void>} resolved after success or failure */
export function connect() {
  connecting = loadModel();
  return connecting;
}

/** Wait for the last connect(). */
export function connected() {
  return connecting;
}

async function loadModel() {
  const request = ++requests;
  update({ service: { stage: "loading" } });
  /** @type {Partial<import("./state.js").State>} */
  let found;
  try {
    const model = await chosenOrDefault();
    found = { service: { stage: "ready", model }, usualThreshold: model.manifest.threshold };
    void loadModels(model.links.models, request);
  } catch (error) {
    found = { service: { stage: "failed", problem: problemOf(error) } };
  }
  if (request === requests) update(found);
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
