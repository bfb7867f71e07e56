/**
 * The page at `/` and the API's documentation at `/docs`: files from this folder, nothing from elsewhere.
 *
 * @module
 */
import type { App } from "./app.ts";

/** Scripts, styles and requests of this server only. */
const POLICY = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self'; " +
  "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** Path, file and type of each. */
const FILES = [
  ["/", "index.html", "text/html"],
  ["/page.css", "page.css", "text/css"],
  ["/page.js", "page.js", "text/javascript"],
  ["/looked.js", "looked.js", "text/javascript"],
  ["/favicon.svg", "favicon.svg", "image/svg+xml"],
  ["/docs", "docs.html", "text/html"],
  ["/docs.js", "docs.js", "text/javascript"],
] as const;

/** They hold nothing that a key guards. */
export const PAGE_PATHS: readonly string[] = FILES.map(([path]) => path);

/** Adds the files' routes. */
export function addPage(app: App): void {
  for (const [path, file, type] of FILES) {
    const bytes = Deno.readFileSync(new URL(`./page/${file}`, import.meta.url));
    const headers = {
      "content-type": `${type}; charset=utf-8`,
      "content-security-policy": POLICY,
      "cache-control": "no-cache",
    };
    app.get(path, () => new Response(bytes, { headers }));
  }
}
