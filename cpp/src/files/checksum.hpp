// checksum.hpp: CRC-32 as zlib, PNG and Python's zlib.crc32 compute it, at the speed of memory.
#pragma once
#include <cstddef>
#include <cstdint>

#include "optimisers/config.hpp"

namespace optimisers::inline OPT_ABI {

// Of `size` bytes that follow those `before` is the checksum of.
std::uint32_t crc32(const void* data, std::size_t size, std::uint32_t before = 0);

}  // namespace optimisers::inline OPT_ABI
