# install.cmake: the library, its headers, the CMake package and the pkg-config files.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(targets optimisers optimisers_kernel_flags)
if(OPTIMISERS_SHARED)
  list(APPEND targets optimisers_c)
endif()
install(TARGETS ${targets} EXPORT optimisers
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/cpp/include/optimisers DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

if(TARGET optimisers_cuda)
  install(TARGETS optimisers_cuda_host optimisers_cuda EXPORT optimisers_cuda
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/cuda/include/optimisers DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
endif()

# What a linker that knows no C++ is told.
set(optimisers_cxx_library stdc++)
if("c++" IN_LIST CMAKE_CXX_IMPLICIT_LINK_LIBRARIES)
  set(optimisers_cxx_library c++)
endif()
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/optimisers)
install(EXPORT optimisers NAMESPACE optimisers:: FILE optimisersTargets.cmake DESTINATION ${package_dir})
if(TARGET optimisers_cuda)
  install(EXPORT optimisers_cuda NAMESPACE optimisers:: FILE optimisersCudaTargets.cmake DESTINATION ${package_dir})
endif()
write_basic_package_version_file(${PROJECT_BINARY_DIR}/optimisersConfigVersion.cmake
  VERSION ${PROJECT_VERSION} COMPATIBILITY SameMinorVersion)
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/optimisersConfig.cmake.in
  ${PROJECT_BINARY_DIR}/optimisersConfig.cmake INSTALL_DESTINATION ${package_dir})
install(FILES ${PROJECT_BINARY_DIR}/optimisersConfig.cmake ${PROJECT_BINARY_DIR}/optimisersConfigVersion.cmake
  DESTINATION ${package_dir})

# Relative, so that the installed tree may be moved.
file(RELATIVE_PATH pc_prefix ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
set(pc_threads)
if(OPTIMISERS_THREADS)
  set(pc_threads " -pthread")
endif()
set(pc_quiet)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  set(pc_quiet " -Wno-psabi")
endif()
set(pc_atomic)
if(optimisers_atomic_library)
  set(pc_atomic " -latomic")
endif()
foreach(name optimisers optimisers_c)
  if(name STREQUAL "optimisers" OR OPTIMISERS_SHARED)
    configure_file(${CMAKE_CURRENT_LIST_DIR}/${name}.pc.in ${PROJECT_BINARY_DIR}/${name}.pc @ONLY)
    install(FILES ${PROJECT_BINARY_DIR}/${name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
  endif()
endforeach()
