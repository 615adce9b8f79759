/** The connection to the API. */

import { fetchModel, problemOf } from "./api.js";
import { update } from "./state.js";

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
    const model = await fetchModel();
    found = { service: { stage: "ready", model }, usualThreshold: model.manifest.threshold };
  } catch (error) {
    found = { service: { stage: "failed", problem: problemOf(error) } };
  }
  if (request === requests) update(found);
}
