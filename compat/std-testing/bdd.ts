/**
 * Stand-in for `@std/testing/bdd`: see ../README.md.
 *
 * @module
 */
export { after as afterAll, afterEach, before as beforeAll, beforeEach, describe, it } from "node:test";
