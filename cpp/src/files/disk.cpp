// disk.cpp: reading, and writing that no kill can cut in half: write, fsync, rename, fsync of the folder.
#include "files/disk.hpp"

#include <cerrno>
#include <system_error>

#include <fcntl.h>
#include <sys/stat.h>
#if defined(_WIN32)
#include <io.h>
#include <share.h>
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#else
#include <sys/file.h>
#include <unistd.h>
#include <climits>
#include <cstdlib>
#endif

namespace optimisers::inline OPT_ABI {
namespace {

constexpr std::size_t largest_piece = std::size_t(1) << 26;  // systems take less than 2 GiB in one call

[[noreturn]] void fail(const char* doing, const std::string& path, int code, const std::string& more = "") {
  throw FileError(std::string(doing) + " \"" + path + "\": " + std::generic_category().message(code) + more, code,
                  path);
}

#if defined(_WIN32)
using Status = struct _stat64;
int status_of(int handle, Status& s) { return _fstat64(handle, &s); }
int status_at(const std::string& path, Status& s) { return _stat64(path.c_str(), &s); }
int open_to_read(const std::string& path) { return _open(path.c_str(), _O_RDONLY | _O_BINARY | _O_NOINHERIT); }
// Nobody else can have it open.
int open_to_write(const std::string& path) {
  int handle = -1;
  const int mode = _O_CREAT | _O_RDWR | _O_BINARY | _O_NOINHERIT;
  errno = _sopen_s(&handle, path.c_str(), mode, _SH_DENYRW, _S_IREAD | _S_IWRITE);
  return handle;
}
bool claim(int, const std::string&) { return true; }
std::ptrdiff_t read_some(int handle, void* to, std::size_t n, std::uint64_t at) {
  if (_lseeki64(handle, std::int64_t(at), SEEK_SET) < 0) return -1;
  return _read(handle, to, unsigned(n));
}
std::ptrdiff_t write_some(int handle, const void* from, std::size_t n, std::uint64_t at) {
  if (_lseeki64(handle, std::int64_t(at), SEEK_SET) < 0) return -1;
  return _write(handle, from, unsigned(n));
}
int to_disk(int handle) { return _commit(handle); }
int shorten(int handle) { return _chsize_s(handle, 0); }
void close_file(int handle) { _close(handle); }
void remove_file(const std::string& path) { _unlink(path.c_str()); }
int take_place(const std::string& from, const std::string& to) {
  if (MoveFileExA(from.c_str(), to.c_str(), MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH) != 0) return 0;
  errno = EACCES;
  return -1;
}
int folder_to_disk(const std::string&) { return 0; }
std::string behind_links(const std::string& path) { return path; }
bool is_regular(const Status& s) { return (s.st_mode & _S_IFMT) == _S_IFREG; }
void keep_mode(int, const std::string&) {}
#else
using Status = struct stat;
int status_of(int handle, Status& s) { return fstat(handle, &s); }
int status_at(const std::string& path, Status& s) { return stat(path.c_str(), &s); }
int open_to_read(const std::string& path) { return open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); }
int open_to_write(const std::string& path) {
  return open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
}
// The lock is the file's; whoever had it before may have moved the file to its place meanwhile.
bool claim(int handle, const std::string& path) {
  Status mine{}, there{};
  if (flock(handle, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) fail("saving: another call is writing", path, EBUSY);
    if (errno != ENOLCK && errno != EOPNOTSUPP && errno != EINVAL) fail("saving: cannot lock", path, errno);
  }
  return fstat(handle, &mine) == 0 && stat(path.c_str(), &there) == 0 && mine.st_ino == there.st_ino &&
         mine.st_dev == there.st_dev;
}
std::ptrdiff_t read_some(int handle, void* to, std::size_t n, std::uint64_t at) {
  return pread(handle, to, n, off_t(at));
}
std::ptrdiff_t write_some(int handle, const void* from, std::size_t n, std::uint64_t at) {
  return pwrite(handle, from, n, off_t(at));
}
int to_disk(int handle) { return fsync(handle); }
int shorten(int handle) { return ftruncate(handle, 0); }
void close_file(int handle) { close(handle); }
void remove_file(const std::string& path) { unlink(path.c_str()); }
int take_place(const std::string& from, const std::string& to) { return rename(from.c_str(), to.c_str()); }
int folder_to_disk(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  const int handle = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (handle < 0) return errno == EACCES ? 0 : -1;  // a folder that can be written to and not be read
  const int failed = fsync(handle), code = errno;
  close(handle);
  errno = code;
  return failed != 0 && code != EINVAL ? -1 : 0;  // file systems that know no such thing
}
std::string behind_links(const std::string& path) {
  Status s{};
  if (lstat(path.c_str(), &s) != 0 || !S_ISLNK(s.st_mode)) return path;
  char* real = realpath(path.c_str(), nullptr);
  if (real == nullptr) fail("saving: cannot follow the link", path, errno);
  std::string found(real);
  free(real);  // NOLINT(cppcoreguidelines-no-malloc): realpath's
  return found;
}
bool is_regular(const Status& s) { return S_ISREG(s.st_mode); }
void keep_mode(int handle, const std::string& path) {
  Status s{};
  if (stat(path.c_str(), &s) == 0) (void)fchmod(handle, s.st_mode & 07777);
}
#endif

[[noreturn]] void refuse_special(const char* doing, const std::string& path, const Status& s) {
  const bool folder = (s.st_mode & S_IFMT) == S_IFDIR;
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
