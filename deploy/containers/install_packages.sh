#!/bin/sh
# Install the locked packages into the image's environment. Usage: install_packages.sh cuda|cpu [index of CPU wheels]
set -eu
variant=$1 index=${2:-}
case "$variant" in
  cuda)
    uv pip install --no-cache --require-hashes -r requirements.lock
    ;;
  cpu)
    if [ -z "$index" ]; then
      echo "VARIANT=cpu needs TORCH_CPU_INDEX: the address of your mirror of PyTorch's CPU wheels" >&2
      exit 2
    fi
    # Blocks of the lock begin at the margin and their hashes are indented: leave out torch and what only CUDA needs.
    awk '/^[^ #]/ {keep = !($0 ~ /^(torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==/)} keep || !/^ /&&!/^[^ #]/' \
      requirements.lock > requirements-cpu.lock
    torch=$(sed -n 's/^\(torch==[^ ;]*\).*/\1/p' requirements.lock)
    vision=$(sed -n 's/^\(torchvision==[^ ;]*\).*/\1/p' requirements.lock)
    uv pip install --no-cache --require-hashes --no-deps -r requirements-cpu.lock
    uv pip install --no-cache --no-deps --index-url "$index" "$torch" "$vision"
    ;;
  *)
    echo "VARIANT is cuda or cpu, not $variant" >&2
    exit 2
    ;;
esac
