/** The deployment that the page talks to. */

import { fetchModel, problemOf } from "./api.js";
import { update } from "./state.js";

/** Counts the questions, so that a late answer of a former endpoint is not taken for the present one's. */
let asked = 0;

export async function connect() {
  const mine = ++asked;
  update({ service: { stage: "loading" } });
  /** @type {import("./state.js").Service} */
  let service;
  try {
    service = { stage: "ready", model: await fetchModel() };
  } catch (error) {
    service = { stage: "failed", problem: problemOf(error) };
  }
  if (mine === asked) update({ service });
}
