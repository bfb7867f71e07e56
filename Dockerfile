# Builds the native library and keeps Deno, packages and sources; the model is mounted or fetched at the first start.
#   docker build -t kvasir .
#   docker run -p 5827:5827 -e KVASIR_API_KEY=secret -v kvasir:/home/kvasir/.cache/kvasir kvasir -m smollm2-135m-instruct
FROM debian:bookworm-slim AS build
RUN apt-get update \
  && apt-get install -y --no-install-recommends ca-certificates cmake g++ ninja-build npm \
  && rm -rf /var/lib/apt/lists/*
WORKDIR /kvasir
COPY . .
# The portable, AVX2 and AVX-512 kernels are all in the library; the machine that runs it chooses.
RUN npm install --prefix .tools --no-save --no-fund --no-audit deno@2.9.6 \
  && ./kvasir doctor

FROM debian:bookworm-slim
RUN apt-get update \
  && apt-get install -y --no-install-recommends ca-certificates libgomp1 python3-pip \
  && rm -rf /var/lib/apt/lists/* \
  && useradd --create-home kvasir
COPY --from=build --chown=kvasir /kvasir /kvasir
COPY --from=build --chown=kvasir /root/.cache/deno /home/kvasir/.cache/deno
USER kvasir
ENV KVASIR_HOST=0.0.0.0
EXPOSE 5827
HEALTHCHECK --interval=10s --start-period=60s CMD ["/kvasir/.tools/node_modules/.bin/deno", "eval", \
  "const r = await fetch('http://127.0.0.1:5827/health'); Deno.exit(r.ok ? 0 : 1)"]
ENTRYPOINT ["/kvasir/kvasir", "serve"]
