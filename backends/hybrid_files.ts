/**
 * Files of a hybrid's tensors: caches lie on the host, whose files they are.
 *
 * @module
 */
import type { TensorFiles } from "./backend.ts";
import type { Tensor } from "../core/tensor.ts";

/** `inner`: of a cache, on the host; `wrap`: a tensor of the host's as one of the hybrid's. */
export function hybridFiles(
  files: TensorFiles,
  inner: (tensor: Tensor) => Tensor,
  wrap: (tensor: Tensor) => Tensor,
): TensorFiles {
  return {
    create(path) {
      const file = files.create(path);
      return {
        add: (name, data) => file.add(name, data),
        addRows: (name, tensors, counts) => file.addRows(name, tensors.map(inner), counts),
        addForeign: (name, write) => file.addForeign(name, write),
        commit: () => file.commit(),
        [Symbol.dispose]: () => file[Symbol.dispose](),
      };
    },
    open(path) {
      const file = files.open(path);
      return {
        verify: () => file.verify(),
        find: (name) => file.find(name),
        read: (name) => file.read(name),
        map: (name, shape, dtype) => wrap(file.map(name, shape, dtype)),
        [Symbol.dispose]: () => file[Symbol.dispose](),
      };
    },
  };
}
