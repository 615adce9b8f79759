/** Registers the service worker, which opens the page without a network. */

const WORKER = "worker.js";

/** The name of this page's policy for trusted types; the server's policy must allow it. */
const POLICY = "litelens";

/** Browsers without service workers, and servers whose policy forbids this one, need the network. */
export async function workOffline() {
  if (!("serviceWorker" in navigator) || !(await isAllowed())) return;
  const { trustedTypes } = /** @type {any} */ (window);
  const policy = trustedTypes?.createPolicy(POLICY, { createScriptURL: (/** @type {string} */ url) => url });
  await navigator.serviceWorker.register(policy ? policy.createScriptURL(WORKER) : WORKER);
  const { active } = await navigator.serviceWorker.ready;
  active?.postMessage([
    location.href.split("#")[0],
    ...performance.getEntriesByType("resource").map(({ name }) => name),
  ]);
}

/** Ask before, because a forbidden policy is reported as a violation. @returns {Promise<boolean>} */
async function isAllowed() {
  const response = await fetch(WORKER).catch(() => null);
  const [, names] = /trusted-types ([^;]*)/.exec(response?.headers.get("content-security-policy") ?? "") ?? [];
  return response !== null && response.ok && (names === undefined || names.split(" ").includes(POLICY));
}
