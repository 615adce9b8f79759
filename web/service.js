/** The deployment that the page talks to. */

import { fetchModel, problemOf } from "./api.js";
import { update } from "./state.js";

/** Counts the questions, so that a late answer of a former endpoint is not taken for the present one's. */
let asked = 0;

export async function connect() {
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
