// disk.cpp: reading, and writing that no kill can cut in half: write, fsync, rename, fsync of the folder.
#include "files/disk.hpp"

#include "files/system.hpp"

namespace optimisers::inline OPT_ABI {
namespace {

constexpr std::size_t largest_piece = std::size_t(1) << 26;  // systems take less than 2 GiB in one call

[[noreturn]] void refuse_special(const char* doing, const std::string& path, const Status& s) {
  const bool folder = is_folder(s);
  fail(doing, path, folder ? EISDIR : EINVAL, folder ? "" : "; it is no regular file");
}

}  // namespace

OldFile::OldFile(const std::string& path) : path_(path), handle_(open_to_read(path)) {
  if (handle_ < 0) fail("loading: cannot open", path, errno);
  Status s{};
  const bool known = status_of(handle_, s) == 0;
  const int code = errno;
  if (known && is_regular(s)) {
    size_ = std::uint64_t(s.st_size);
    return;
  }
  close_file(handle_);
  if (!known) fail("loading: cannot read", path, code);
  refuse_special("loading: cannot read", path, s);
}
OldFile::~OldFile() { close_file(handle_); }

void OldFile::read(std::uint64_t at, void* to, std::size_t bytes) const {
  auto* p = static_cast<std::byte*>(to);
  while (bytes > 0) {
    const std::ptrdiff_t n = read_some(handle_, p, bytes < largest_piece ? bytes : largest_piece, at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("loading: cannot read", path_, errno);
    if (n == 0) fail("loading: cannot read", path_, EIO, "; the file became shorter meanwhile");
    p += n, at += std::uint64_t(n), bytes -= std::size_t(n);
  }
}

NewFile::NewFile(const std::string& path) : path_(behind_links(path)), part_(path_ + ".part") {
  Status s{};
  if (path.empty() || path.find('\0') != std::string::npos) fail("saving: cannot write", path, EINVAL);
  if (status_at(path_, s) == 0 && !is_regular(s)) refuse_special("saving: cannot replace", path, s);  // a device
  for (int tries = 0;; ++tries) {
    handle_ = open_to_write(part_);
    if (handle_ < 0) fail("saving: cannot write", part_, errno);
    try {
      if (claim(handle_, part_)) break;
    } catch (...) {
      close_file(handle_);
      throw;
    }
    close_file(handle_);
    if (tries == 100) fail("saving: others keep writing", part_, EBUSY);
  }
  mine_ = true;
  if (status_of(handle_, s) != 0 || !is_regular(s) || shorten(handle_) != 0) {
    const int code = errno;
    close_file(handle_);
    fail("saving: cannot write", part_, code);
  }
}

NewFile::~NewFile() {
  if (!mine_) return;
  remove_file(part_);  // before the lock is let go
  close_file(handle_);
}

void NewFile::write(std::uint64_t at, const void* from, std::size_t bytes) {
  const auto* p = static_cast<const std::byte*>(from);
  while (bytes > 0) {
    const std::ptrdiff_t n = write_some(handle_, p, bytes < largest_piece ? bytes : largest_piece, at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail("saving: cannot write", part_, n < 0 ? errno : ENOSPC);
    p += n, at += std::uint64_t(n), bytes -= std::size_t(n);
  }
}

void NewFile::commit() {
  keep_mode(handle_, path_);
  if (to_disk(handle_) != 0) fail("saving: cannot bring to the disk", part_, errno);
#if defined(_WIN32)
  close_file(handle_);
  mine_ = false;
  if (take_place(part_, path_) != 0) {
    remove_file(part_);
    fail("saving: cannot replace", path_, errno);
  }
#else
  if (take_place(part_, path_) != 0) fail("saving: cannot replace", path_, errno);
  mine_ = false;
  close_file(handle_);
#endif
  if (folder_to_disk(path_) != 0)
    fail("saving: the file is in its place, but cannot bring to the disk the folder of", path_, errno);
}

}  // namespace optimisers::inline OPT_ABI
