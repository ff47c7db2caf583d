# Run by cpack on the folder that becomes the .deb: what Debian's policy wants there, and an upstream install does not have.
set(share ${CPACK_TEMPORARY_INSTALL_DIRECTORY}/usr/share)
configure_file(${CPACK_CROSSFEED_SOURCE}/LICENSE ${share}/doc/crossfeed/copyright COPYONLY)
string(TIMESTAMP date "%a, %d %b %Y %H:%M:%S +0000" UTC) # that of SOURCE_DATE_EPOCH, if it is set
file(WRITE ${share}/doc/crossfeed/changelog
"crossfeed (${CPACK_PACKAGE_VERSION}) unstable; urgency=medium

  * Version ${CPACK_PACKAGE_VERSION}.

 -- ${CPACK_PACKAGE_CONTACT}  ${date}
")
file(GLOB pages ${share}/man/man1/*.1)
execute_process(COMMAND gzip -9nf ${pages} ${share}/doc/crossfeed/changelog COMMAND_ERROR_IS_FATAL ANY)
