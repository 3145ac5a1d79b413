{ lib, ... }:
{ imports = [ ]; } // { a = 1; }
