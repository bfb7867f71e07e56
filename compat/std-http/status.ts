/**
 * Stand-in for `@std/http/status`: see ../README.md.
 *
 * @module
 */
// @ts-types="./status.d.ts"
export { STATUS_CODE, STATUS_TEXT } from "npm:deno-std@1.4.0/http/status.js";
