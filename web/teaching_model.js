/** Trying and keeping what was learned. */

import { problemOf } from "./api.js";
import { save } from "./saving.js";
import { connect } from "./service.js";
import { current, update } from "./state.js";
import { stored } from "./teaching.js";
import { call, inTurn } from "./teaching_server.js";
import { change, state } from "./teaching_state.js";
import { text } from "./text.js";

/** @import {Answer} from "./state.js" */
/** @import {Trial} from "./teaching_state.js" */

const MAX_TRIALS = 12;

let lastId = 0;

/** Classify photos with what was learned. @param {readonly Blob[]} files */
export async function tryPhotos(files) {
  for (const file of files.slice(0, MAX_TRIALS)) {
    const trial = { id: ++lastId, url: URL.createObjectURL(file), answer: null, problem: null };
    const gone = state().trials.slice(MAX_TRIALS - 1);
    for (const { url } of gone) URL.revokeObjectURL(url);
    change({ trials: [trial, ...state().trials.slice(0, MAX_TRIALS - 1)] });
    try {
      const answer = await classify(await stored(file));
      changeTrial(trial.id, { answer });
      update({ announcement: text.teach.announceTried(answer) });
    } catch (error) {
      changeTrial(trial.id, { problem: problemOf(error) });
    }
  }
}

/** @param {Blob} photo @returns {Promise<Answer>} */
export async function classify(photo) {
  return (await call("POST", "/classify", photo)).json();
}

/** @param {number} id @param {Partial<Trial>} changes */
function changeTrial(id, changes) {
  change({ trials: state().trials.map((each) => (each.id === id ? { ...each, ...changes } : each)) });
}

/** Write the model to the folder of models. @param {string} name */
export async function keep(name) {
  const { load } = state().problems;
  change({ isKeeping: true, problems: { load } });
  try {
    await inTurn(() => call("POST", "/keep", { name }));
    change({ kept: name }, text.teach.kept(name));
    // The service has another model.
    void connect();
  } catch (error) {
    change({ problems: { load, keep: problemOf(error) } });
  }
  change({ isKeeping: false });
}

/** @param {string} name of the file, without its suffix */
export async function download(name) {
  try {
    save(await (await call("GET", "/bundle.zip")).blob(), `${name}.zip`);
  } catch (error) {
    change({ problems: { ...state().problems, keep: problemOf(error) } });
  }
}

/** Return the names of the models of the service. */
export function modelNames() {
  const { models, service } = current();
  return models?.names ?? (service.stage === "ready" ? [service.model.manifest.name] : []);
}
