import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";

import { gzipAssets } from "./scripts/gzip.js";
import { writeLicenses } from "./scripts/licenses.js";
import { writeStamp } from "./scripts/stamp.js";

export default defineConfig({
  // Relative, so that the page also works behind a proxy that adds a path prefix.
  base: "./",
  plugins: [svelte(), gzipAssets(), writeLicenses(), writeStamp()],
  build: {
    // light-dark() and nesting ship as written: every browser has had them since 2024.
    target: "es2024",
    cssTarget: ["chrome123", "firefox121", "safari17.5"],
    modulePreload: { polyfill: false },
    // An inlined font or image would be refused by the Content-Security-Policy.
    assetsInlineLimit: 0,
  },
  server: { host: "127.0.0.1", proxy: { "/v1": "http://127.0.0.1:8080", "/health": "http://127.0.0.1:8080" } },
  resolve: process.env.VITEST ? { conditions: ["browser"] } : {},
  test: { environment: "jsdom", include: ["tests/**/*.test.ts"], setupFiles: ["tests/setup.ts"] },
});
