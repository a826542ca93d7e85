# For building against the ROS 2 wheels; given as CMAKE_PROJECT_INCLUDE, so that neither the
# packages nor the wheels have to be changed.
#
# Some targets that the wheels export name include directories of the machine on which the wheels
# were built, and CMake refuses those ("includes non-existent path"). Once a project is configured,
# drop such directories from every imported target it has found. The headers are found all the
# same: Python's and NumPy's come from find_package(Python3).
function(_drop_missing_include_directories)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(directories ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(NOT directories)
      continue()
    endif()
    set(kept)
    foreach(directory IN LISTS directories)
      if(directory MATCHES "^\\$<" OR EXISTS "${directory}")
        list(APPEND kept "${directory}")
      endif()
    endforeach()
    set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${kept}")
  endforeach()
endfunction()

cmake_language(DEFER CALL _drop_missing_include_directories)
