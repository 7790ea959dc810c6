// system.hpp: what disk.cpp asks of the operating system: of Windows, of one like Unix, or of none.
#pragma once
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <system_error>

#include "optimisers/error.hpp"
#if defined(_WIN32)
#include <fcntl.h>
#include <io.h>
#include <share.h>
#include <sys/stat.h>
#define WIN32_LEAN_AND_MEAN
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>
#elif defined(__unix__) || defined(__APPLE__)
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <climits>
#include <cstdlib>
#endif

namespace optimisers::inline OPT_ABI {
namespace {

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
bool is_folder(const Status& s) { return (s.st_mode & _S_IFMT) == _S_IFDIR; }
void keep_mode(int, const std::string&) {}
#elif defined(__unix__) || defined(__APPLE__)
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
bool is_folder(const Status& s) { return S_ISDIR(s.st_mode); }
void keep_mode(int handle, const std::string& path) {
  Status s{};
  if (stat(path.c_str(), &s) == 0) (void)fchmod(handle, s.st_mode & 07777);
}
#else
struct Status {
  std::uint64_t st_size;
};
int none() {
  errno = ENOSYS;
  return -1;
}
int status_of(int, Status&) { return none(); }
int status_at(const std::string&, Status&) { return none(); }
int open_to_read(const std::string&) { return none(); }
int open_to_write(const std::string&) { return none(); }
bool claim(int, const std::string&) { return true; }
std::ptrdiff_t read_some(int, void*, std::size_t, std::uint64_t) { return none(); }
std::ptrdiff_t write_some(int, const void*, std::size_t, std::uint64_t) { return none(); }
int to_disk(int) { return none(); }
int shorten(int) { return none(); }
void close_file(int) {}
void remove_file(const std::string&) {}
int take_place(const std::string&, const std::string&) { return none(); }
int folder_to_disk(const std::string&) { return none(); }
std::string behind_links(const std::string& path) { return path; }
bool is_regular(const Status&) { return true; }
bool is_folder(const Status&) { return false; }
void keep_mode(int, const std::string&) {}
#endif

}  // namespace
}  // namespace optimisers::inline OPT_ABI
