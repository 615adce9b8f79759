/** The conversation about a photo. */

import { describe, problemOf } from "./api.js";
import { base64Of, inRequest } from "./images.js";
import { run, stop } from "./jobs.js";
import { model, photoById, updatePhoto } from "./state.js";

/** @import {Conversation} from "./state.js" */

/**
 * @param {number} id the photo's
 * @param {string} question
 */
export async function ask(id, question) {
  const photo = photoById(id);
  if (!photo || photo.conversation.question !== null) return;
  change(id, { question, draft: "", problem: null });
  try {
    const answer = await run(id, "ask", (signal) =>
      inRequest(photo.file, model(), async (image) =>
        describe(await base64Of(image), question, photo.conversation.turns, signal),
      ),
    );
    change(id, { turns: answer.turns, model: answer.describe_model, question: null });
  } catch (error) {
    // Keep the question, so that it need not be typed again.
    const draft = photoById(id)?.conversation.draft || question;
    change(id, { problem: problemOf(error), question: null, draft });
  }
}

/** @param {number} id */
export function stopAsking(id) {
  stop(id, "ask");
}

/** Store a question that is not sent yet. @param {number} id @param {string} draft */
export function keepDraft(id, draft) {
  change(id, { draft });
}

/** @param {number} id @param {Partial<Conversation>} changes */
function change(id, changes) {
  const changed = photoById(id);
  if (changed) updatePhoto(id, { conversation: { ...changed.conversation, ...changes } });
}
