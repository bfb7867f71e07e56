/**
 * `GET /v1/models` and `/v1/models/{id}`.
 *
 * @module
 */
import type { App } from "./app.ts";
import type { Service } from "./service.ts";
import { ApiError } from "./errors.ts";

/** Adds them. */
export function addModelRoutes(app: App, service: Service): void {
  const { options, info, created } = service;
  const describe = (id: string) => ({
    id,
    object: "model",
    created,
    owned_by: "kvasir",
    root: options.model,
    max_model_len: info.ctxSize,
    meta: {
      n_vocab: info.config.vocab,
      n_ctx_train: info.config.contextLength,
      n_embd: info.config.width,
      n_layer: info.config.layers.length,
      n_params: info.params,
      size: info.bytes,
      architecture: info.config.architecture,
      chat: info.chatTemplate,
      policy: info.policy,
      index: info.index,
      backend: info.backend,
      kv_type: info.kvType,
    },
  });
  const names = [options.model, ...options.aliases ?? []];
  app.get("/v1/models", (c) => c.json({ object: "list", data: names.map(describe) }));
  app.get("/v1/models/:id{.+}", (c) => {
    const id = c.req.param("id");
    if (!service.isModel(id)) {
      throw new ApiError(
        "not_found_error",
        `Cannot find model "${id.slice(0, 256)}": this server has "${options.model}"`,
      );
    }
    return c.json(describe(id));
  });
}
