"""What a mount of an ext4 would show, read from the image without mounting it.

`View` names what is in sight by a number, quickly, for one state after the other; `listing` spells
it out, so that it can be held against a mounted folder. Both read only. Whatever is not as
`mkfs.ext4` and the kernel leave it by default is `NotReadable`: then a mount has to say what it is.
"""
