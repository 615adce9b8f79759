/** The service worker: opens the page without a network, from the files of the last visit. */

const CACHE = "page";

/** Paths of the API, on a server that has both. */
const API = /^\/(v1\/|docs(\/|$)|openapi\.json$)/;

/** Folders with the files of one version of the page, which never change. */
const VERSION = /^\/v-[0-9a-f]{12}\//;

// TypeScript's types of workers and of pages exclude each other.
const worker = /** @type {any} */ (self);

worker.addEventListener("install", () => worker.skipWaiting());
worker.addEventListener("activate", (/** @type {any} */ event) => event.waitUntil(worker.clients.claim()));

// The files that a page has loaded, once it has all of them.
worker.addEventListener("message", (/** @type {any} */ event) => {
  event.waitUntil(keep([...new Set(/** @type {string[]} */ (event.data))].filter(isOfPage)));
});

worker.addEventListener("fetch", (/** @type {any} */ event) => {
  const { method, url } = event.request;
  if (method !== "GET" || !isOfPage(url)) return;
  event.respondWith(versionOf(url) ? unchanging(event.request) : fresh(event.request));
});

/** @param {string} address */
function isOfPage(address) {
  const { origin, pathname } = new URL(address);
  return origin === location.origin && !API.test(pathname);
}

/** @param {string} address @returns {string | undefined} */
function versionOf(address) {
  return VERSION.exec(new URL(address).pathname)?.[0];
}

/** Keep these files, and give up those of other versions. @param {string[]} addresses */
async function keep(addresses) {
  const cache = await caches.open(CACHE);
  const missing = await Promise.all(
    addresses.map(async (address) => versionOf(address) !== undefined && !(await cache.match(address))),
  );
  await cache.addAll(addresses.filter((_, index) => missing[index]));
  // Last, so that a kept index has the files that it names.
  await cache.addAll(addresses.filter((address) => versionOf(address) === undefined));
  const versions = new Set(addresses.map(versionOf));
  for (const { url } of await cache.keys()) {
    if (!addresses.includes(url) && !(versionOf(url) && versions.has(versionOf(url)))) await cache.delete(url);
  }
}

/** Return the kept file; if there is none, keep the server's. @param {Request} request */
async function unchanging(request) {
  const cache = await caches.open(CACHE);
  const kept = await cache.match(request);
  if (kept) return kept;
  const response = await fetch(request);
  if (response.ok) await cache.put(request, response.clone());
  return response;
}

/** Return the server's file, or the kept one if the server does not answer. @param {Request} request */
async function fresh(request) {
  try {
    return await fetch(request);
  } catch (error) {
    const kept = await caches.match(request);
    if (kept) return kept;
    throw error;
  }
}
