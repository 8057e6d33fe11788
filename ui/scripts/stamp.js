/**
 * The stamp says from which sources `dist` was built: SHA-256 over every source file, in order of
 * its path, as `path NUL content NUL`. A build compares it to tell a stale bundle.
 *
 * `node scripts/stamp.js` exits 0 when `dist` is fresh and 1 when it is stale or missing.
 */
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join, relative, sep } from "node:path";
import { argv, exit } from "node:process";
import { fileURLToPath } from "node:url";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const STAMP = join(ROOT, "dist", ".stamp");
const FILES = ["index.html", "package-lock.json", "svelte.config.js", "tsconfig.json", "vite.config.ts"];
const FOLDERS = ["public", "scripts", "src"];

/** @returns {string} the hash of the sources as they are now, in hex */
export function sourceHash() {
  const hash = createHash("sha256");
  for (const path of [...FILES, ...FOLDERS.flatMap(filesUnder)].sort()) {
    hash.update(`${path}\0`).update(readFileSync(join(ROOT, path))).update("\0");
  }
  return hash.digest("hex");
}

/** Vite plugin: writes the stamp after a build. @returns {import("vite").Plugin} */
export function writeStamp() {
  return { name: "write-stamp", apply: "build", closeBundle: () => writeFileSync(STAMP, `${sourceHash()}\n`) };
}

/** @param {string} folder @returns {string[]} */
function filesUnder(folder) {
  return readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(ROOT, join(entry.parentPath, entry.name)).split(sep).join("/"));
}

function isFresh() {
  try {
    return readFileSync(STAMP, "utf8").trim() === sourceHash();
  } catch {
    return false;
  }
}

if (argv[1] === fileURLToPath(import.meta.url)) exit(isFresh() ? 0 : 1);
