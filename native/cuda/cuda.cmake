# libkvasir_cuda (target kvasir_cuda, with -DKVASIR_NVCC=<nvcc>) and its twin on the CPU, libkvasir_cuda_emulated, from the same
# sources: *.cc are the host's compiler's, *.cu nvcc's or, in the twin, the host's with emulation.h. docs/cuda.md says more.
set(KVASIR_NVCC "" CACHE FILEPATH "nvcc of CUDA 13.0; nothing: libkvasir_cuda is not built")
set(KVASIR_CUDA_ARCHITECTURES "75;80;86;89;90a;100;120" CACHE STRING "architectures to compile for; the last gives PTX too")
set(KVASIR_CUDA_DEFINES "" CACHE STRING "definitions for kernels: KVASIR_MUTANTS for those of cuda/mutants.h")

file(GLOB cuda_hosts CONFIGURE_DEPENDS cuda/*.cc)
file(GLOB cuda_kernels CONFIGURE_DEPENDS cuda/*.cu)
file(GLOB cuda_emulated CONFIGURE_DEPENDS cuda/emulation.cc cuda/*_emulated.cc)
file(GLOB cuda_real CONFIGURE_DEPENDS cuda/*_cuda.cc)
list(REMOVE_ITEM cuda_hosts ${cuda_emulated} ${cuda_real})
# What indexes over any memory share.
list(APPEND cuda_hosts index/arguments.cc index/params.cc index/rows.cc)

# The twin. Kernels are C++ to it; what depends on which of two builds a source is for is a definition.
set_source_files_properties(${cuda_kernels} PROPERTIES LANGUAGE CXX)
add_library(kvasir_cuda_emulated_objects OBJECT EXCLUDE_FROM_ALL ${cuda_hosts} ${cuda_emulated} ${cuda_kernels})
target_include_directories(kvasir_cuda_emulated_objects PRIVATE include base index cuda)
target_compile_options(kvasir_cuda_emulated_objects PRIVATE ${flags} -x c++ -Wno-unknown-pragmas -Wno-unused-variable)
target_compile_definitions(kvasir_cuda_emulated_objects PRIVATE KVASIR_EMULATION=1 ${KVASIR_CUDA_DEFINES})
kvasir_library(kvasir_cuda_emulated kvasir_cuda_emulated_objects)
set_target_properties(kvasir_cuda_emulated PROPERTIES EXCLUDE_FROM_ALL ON)

file(GLOB cuda_bench_kernels CONFIGURE_DEPENDS cuda/bench/*.cu)
set(cuda_bench_hosts cuda/bench/attention_bench.cc cuda/bench/recorded_rows.cc)
set_source_files_properties(${cuda_bench_kernels} PROPERTIES LANGUAGE CXX)
add_executable(kvasir_cuda_attention_bench_emulated EXCLUDE_FROM_ALL ${cuda_bench_hosts} ${cuda_bench_kernels}
               $<TARGET_OBJECTS:kvasir_base_objects> $<TARGET_OBJECTS:kvasir_cuda_emulated_objects>)
target_include_directories(kvasir_cuda_attention_bench_emulated PRIVATE include base index cuda cuda/bench bench)
target_compile_options(kvasir_cuda_attention_bench_emulated PRIVATE ${flags} -x c++ -Wno-unknown-pragmas)
target_compile_definitions(kvasir_cuda_attention_bench_emulated PRIVATE KVASIR_EMULATION=1)
target_link_libraries(kvasir_cuda_attention_bench_emulated PRIVATE Threads::Threads ${link_flags})

add_executable(kvasir_cuda_matmul_bench_emulated EXCLUDE_FROM_ALL cuda/bench/matmul_bench.cc)
target_include_directories(kvasir_cuda_matmul_bench_emulated PRIVATE include)
target_link_libraries(kvasir_cuda_matmul_bench_emulated PRIVATE kvasir_cuda_emulated)

if(KVASIR_TESTS)
  file(GLOB cuda_tests CONFIGURE_DEPENDS cuda/test/*_test.cc)
  add_executable(kvasir_cuda_test EXCLUDE_FROM_ALL ${cuda_tests} test/main.cc $<TARGET_OBJECTS:kvasir_base_objects>
                                  $<TARGET_OBJECTS:kvasir_cuda_emulated_objects>)
  target_include_directories(kvasir_cuda_test PRIVATE include base index cuda test)
  target_compile_options(kvasir_cuda_test PRIVATE ${flags})
  target_compile_definitions(kvasir_cuda_test PRIVATE KVASIR_EMULATION=1)
  target_link_libraries(kvasir_cuda_test PRIVATE Threads::Threads ${link_flags})
endif()

if(KVASIR_NVCC)
  get_filename_component(cuda_root ${KVASIR_NVCC} DIRECTORY)
  get_filename_component(cuda_root ${cuda_root} DIRECTORY)
  find_file(cudart libcudart_static.a PATHS ${cuda_root}/lib64 ${cuda_root}/lib ${cuda_root}/targets/x86_64-linux/lib
            ${cuda_root}/targets/sbsa-linux/lib NO_DEFAULT_PATH REQUIRED)
  set(gencode "")
  foreach(arch ${KVASIR_CUDA_ARCHITECTURES})
    list(APPEND gencode -gencode arch=compute_${arch},code=sm_${arch})
  endforeach()
  # PTX of the newest for what comes after it; features of an "a" architecture do not carry over.
  list(GET KVASIR_CUDA_ARCHITECTURES -1 newest)
  if(NOT newest MATCHES "a$")
    list(APPEND gencode -gencode arch=compute_${newest},code=compute_${newest})
  endif()
  set(objects "")
  set(bench_objects "")
  file(GLOB cuda_headers CONFIGURE_DEPENDS cuda/*.h cuda/*.cuh base/*.h index/*.h include/*.h)
  foreach(source ${cuda_kernels} ${cuda_bench_kernels})
    get_filename_component(name ${source} NAME)
    set(object ${CMAKE_CURRENT_BINARY_DIR}/cuda/${name}.o)
    add_custom_command(
      OUTPUT ${object}
      COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_CURRENT_BINARY_DIR}/cuda
      COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/cuda/nvcc.sh ${object} ${KVASIR_NVCC} -std=c++17 -O3 ${gencode} -lineinfo -ccbin ${CMAKE_CXX_COMPILER} -Xcompiler
              -fPIC,-fvisibility=hidden -Xptxas -v --expt-relaxed-constexpr
              -I${CMAKE_CURRENT_SOURCE_DIR}/include -I${CMAKE_CURRENT_SOURCE_DIR}/base -I${CMAKE_CURRENT_SOURCE_DIR}/index
              -I${CMAKE_CURRENT_SOURCE_DIR}/cuda
              -c ${source}
      DEPENDS ${source} ${cuda_headers}
      COMMENT "nvcc ${name}"
      VERBATIM)
    if(source IN_LIST cuda_bench_kernels)
      list(APPEND bench_objects ${object})
    else()
      list(APPEND objects ${object})
    endif()
  endforeach()
  add_library(kvasir_cuda_objects OBJECT EXCLUDE_FROM_ALL ${cuda_hosts} ${cuda_real})
  target_include_directories(kvasir_cuda_objects PRIVATE include base index cuda)
  target_include_directories(kvasir_cuda_objects SYSTEM PRIVATE ${cuda_root}/include)
  target_compile_options(kvasir_cuda_objects PRIVATE ${flags})
  if("90a" IN_LIST KVASIR_CUDA_ARCHITECTURES)
    target_compile_definitions(kvasir_cuda_objects PRIVATE KVASIR_SM90A=1)
  endif()
  add_library(kvasir_cuda SHARED EXCLUDE_FROM_ALL ${objects} $<TARGET_OBJECTS:kvasir_base_objects> $<TARGET_OBJECTS:kvasir_cuda_objects>)
  set_target_properties(kvasir_cuda PROPERTIES LINKER_LANGUAGE CXX)
  target_link_libraries(kvasir_cuda PRIVATE ${cudart} Threads::Threads rt ${CMAKE_DL_LIBS} -Wl,-z,nodelete -Wl,--no-undefined
                                            -Wl,--exclude-libs,ALL)
  # The tests that do not ask for the emulation, on the device.
  add_executable(kvasir_cuda_device_test EXCLUDE_FROM_ALL cuda/test/attention_test.cc cuda/test/attention_best_test.cc cuda/test/index_test.cc cuda/test/layers_test.cc
                                         cuda/test/launch_queue_test.cc cuda/test/orders_test.cc test/main.cc ${objects} $<TARGET_OBJECTS:kvasir_base_objects>
                                         $<TARGET_OBJECTS:kvasir_cuda_objects>)
  target_include_directories(kvasir_cuda_device_test PRIVATE include base index cuda test)
  target_include_directories(kvasir_cuda_device_test SYSTEM PRIVATE ${cuda_root}/include)
  target_compile_options(kvasir_cuda_device_test PRIVATE ${flags})
  target_link_libraries(kvasir_cuda_device_test PRIVATE ${cudart} Threads::Threads rt ${CMAKE_DL_LIBS})
  add_executable(kvasir_cuda_attention_bench EXCLUDE_FROM_ALL ${cuda_bench_hosts} ${bench_objects} ${objects}
                                             $<TARGET_OBJECTS:kvasir_base_objects> $<TARGET_OBJECTS:kvasir_cuda_objects>)
  target_include_directories(kvasir_cuda_attention_bench PRIVATE include base index cuda cuda/bench bench)
  target_include_directories(kvasir_cuda_attention_bench SYSTEM PRIVATE ${cuda_root}/include)
  target_compile_options(kvasir_cuda_attention_bench PRIVATE ${flags})
  target_link_libraries(kvasir_cuda_attention_bench PRIVATE ${cudart} Threads::Threads rt ${CMAKE_DL_LIBS})
  add_executable(kvasir_cuda_matmul_bench EXCLUDE_FROM_ALL cuda/bench/matmul_bench.cc)
  target_include_directories(kvasir_cuda_matmul_bench PRIVATE include)
  target_link_libraries(kvasir_cuda_matmul_bench PRIVATE kvasir_cuda)
endif()
