# A CMake toolchain file under which Horovod 0.28.1 compiles as C++17.
#
# Horovod asks for C++14 by name, and the headers of PyTorch 2.1 and later refuse anything below
# C++17. This file changes what "C++14" means to the compiler, so that Horovod's source stays as
# published. It is read twice: first as the toolchain, before CMake knows its compiler, when all that
# it can do is ask to be read again; and then at the end of project(horovod), when CMake has set the
# two options below to its own values and nothing sets them afterwards. Needs CMake 3.21.
set(CMAKE_PROJECT_horovod_INCLUDE "${CMAKE_CURRENT_LIST_FILE}")
set(CMAKE_CXX14_STANDARD_COMPILE_OPTION "-std=c++17")
set(CMAKE_CXX14_EXTENSION_COMPILE_OPTION "-std=gnu++17")
# Horovod builds with debug information by default, which makes the wheel nine times as large.
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -DNDEBUG")
