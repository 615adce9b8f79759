/** What was dropped on the page, folders and all. */

/**
 * @param {DataTransfer} dropped read before this returns its promise, as browsers empty it right after the event
 * @returns {Promise<File[]>} files of folders in the order of their names; hidden ones are left out
 */
export async function filesIn(dropped) {
  const entries = [...dropped.items].map((item) => item.webkitGetAsEntry());
  if (!entries.some((entry) => entry?.isDirectory)) return [...dropped.files];
  return flat(entries.filter((entry) => entry !== null));
}

/** @param {FileSystemEntry} entry @returns {Promise<File[]>} */
async function filesBelow(entry) {
  if (entry.name.startsWith(".")) return [];
  if (entry.isFile) {
    const file = /** @type {FileSystemFileEntry} */ (entry);
    // One that cannot be read is as good as empty, which is told of when it is sent.
    return [await new Promise((resolve) => file.file(resolve, () => resolve(new File([], entry.name))))];
  }
  const entries = await entriesOf(/** @type {FileSystemDirectoryEntry} */ (entry));
  entries.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  return flat(entries);
}

/** @param {FileSystemEntry[]} entries @returns {Promise<File[]>} */
async function flat(entries) {
  return (await Promise.all(entries.map(filesBelow))).flat();
}

/** @param {FileSystemDirectoryEntry} folder @returns {Promise<FileSystemEntry[]>} */
async function entriesOf(folder) {
  const reader = folder.createReader();
  const entries = [];
  // A hundred at a time, until there are none.
  for (;;) {
    /** @type {FileSystemEntry[]} */
    const some = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
    if (some.length === 0) return entries;
    entries.push(...some);
  }
}
