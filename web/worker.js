/** The service worker: opens the page without a network, from the files of the last visit. */

const CACHE = "page";

/** Paths of the API, on a server that has both. */
const API = /^\/(v1\/|docs(\/|$)|openapi\.json$)/;

// TypeScript's types of workers and of pages exclude each other.
const worker = /** @type {any} */ (self);

worker.addEventListener("install", () => worker.skipWaiting());
worker.addEventListener("activate", (/** @type {any} */ event) => event.waitUntil(worker.clients.claim()));

// The files that the page has loaded before this worker.
worker.addEventListener("message", (/** @type {any} */ event) => {
  const addresses = [...new Set(event.data)].filter(isOfPage);
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(addresses)));
});

worker.addEventListener("fetch", (/** @type {any} */ event) => {
  if (event.request.method === "GET" && isOfPage(event.request.url)) event.respondWith(fresh(event.request));
});

/** @param {any} address */
function isOfPage(address) {
  const { origin, pathname } = new URL(address);
  return origin === location.origin && !API.test(pathname);
}

/** Return the server's file, or the kept one if the server does not answer. @param {Request} request */
async function fresh(request) {
  const cache = await caches.open(CACHE);
  try {
    const response = await fetch(request);
    if (response.ok) await cache.put(request, response.clone());
    return response;
  } catch (error) {
    const kept = await cache.match(request);
    if (kept) return kept;
    throw error;
  }
}
