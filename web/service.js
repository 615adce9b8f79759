/** The deployment that the page talks to. */

import { fetchModel, problemOf } from "./api.js";
import { update } from "./state.js";

/** Counts the questions, so that a late answer of a former endpoint is not taken for the present one's. */
let asked = 0;

/** @type {Promise<void>} */
let connecting = Promise.resolve();

/** Ask the service that the settings name what it is. @returns {Promise<void>} once it is known, or why it is not */
export function connect() {
  connecting = askForModel();
  return connecting;
}

/** Until what was asked last is known. */
export function connected() {
  return connecting;
}

async function askForModel() {
  const mine = ++asked;
  update({ service: { stage: "loading" } });
  /** @type {Partial<import("./state.js").State>} */
  let found;
  try {
    const model = await fetchModel();
    found = { service: { stage: "ready", model }, usualThreshold: model.manifest.threshold };
  } catch (error) {
    found = { service: { stage: "failed", problem: problemOf(error) } };
  }
  if (mine === asked) update(found);
}
