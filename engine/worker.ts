/**
 * The worker that an engine's loop runs in.
 *
 * @module
 */
import { load } from "./load.ts";
import { serve } from "./serve.ts";

serve(load);
