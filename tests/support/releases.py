"""Miniatures of published releases, and what must be read from them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Tree:
    """What a miniature tree holds, and what must be read from it.

    ``good``: path -> speaker, gender, emotion. ``left_out``: recordings that the docstring lists as left
    out. ``bad``: path -> what is said about it.
    """

    good: dict[str, tuple[str, str, str]]
    bad: dict[str, str]
    left_out: tuple[str, ...] = ()
    texts: dict[str, str] = field(default_factory=dict)


TREES = {
    "emodb": Tree(
        good={
            "wav/03a01Fa.wav": ("emodb_03", "male", "happy"),
            "wav/16b10Lb.wav": ("emodb_16", "female", "bored"),
            "wav/08a02Ea.wav": ("emodb_08", "female", "disgusted"),
            "wav/15a05Wb.wav": ("emodb_15", "male", "angry"),
            "wav/13b02Tc.wav": ("emodb_13", "female", "sad"),
            "wav/09a07Aa.wav": ("emodb_09", "female", "fearful"),
            "wav/11a01Nd.wav": ("emodb_11", "male", "neutral"),
        },
        bad={"wav/03a01Xa.wav": "not like wav/03a01Fa", "wav/99a01Fa.wav": "not like"},
        texts={"erkennung.txt": "x", "lablaut/03a01Fa.lablaut": "x", "silb/03a01Fa.silb": "x"},
    ),
    "ravdess": Tree(
        good={
            "Actor_12/03-01-06-01-02-01-12.wav": ("ravdess_12", "female", "fearful"),
            "Actor_01/03-01-02-02-01-02-01.wav": ("ravdess_01", "male", "calm"),
            "Actor_24/03-01-08-02-01-02-24.wav": ("ravdess_24", "female", "surprised"),
        },
        bad={
            "Actor_01/03-01-09-01-01-01-01.wav": "not like",
            "Actor_25/03-01-01-01-01-01-25.wav": "not like",
        },
        left_out=(
            "song/Actor_01/03-02-03-01-01-01-01.wav",
            "Actor_01/01-01-02-02-01-02-01.mp4",
            "Actor_01/02-01-02-02-01-02-01.mp4",
        ),
    ),
    "cremad": Tree(
        good={
            "AudioWAV/1001_DFA_ANG_XX.wav": ("cremad_1001", "male", "angry"),
            "AudioWAV/1002_IEO_HAP_HI.wav": ("cremad_1002", "female", "happy"),
            "AudioWAV/1040_ITH_SAD_X.wav": ("cremad_1040", "female", "sad"),
        },
        bad={
            "AudioWAV/1076_MTI_SAD_XX.wav": "known fault of the release: it has no sound",
            "AudioWAV/1064_IEO_DIS_MD.wav": "known fault of the release: it holds all emotions",
            "AudioWAV/1001_DFA_BOR_XX.wav": "not like",
        },
        left_out=("AudioMP3/1001_DFA_ANG_XX.mp3", "VideoFlash/1001_DFA_ANG_XX.flv"),
        texts={
            "VideoDemographics.csv": '"ActorID","Age","Sex","Race"\n1001,51,"Male",x\n'
            '1002,21,"Female",x\n1040,42,"Female",x\n1076,25,"Female",x\n',
            "README.md": "x",
        },
    ),
    "emovo": Tree(
        good={
            "f1/dis-f1-b1.wav": ("emovo_f1", "female", "disgusted"),
            "m3/gio-m3-n5.wav": ("emovo_m3", "male", "happy"),
            "f2/rab-f2-l4.wav": ("emovo_f2", "female", "angry"),
            "m1/pau-m1-d2.wav": ("emovo_m1", "male", "fearful"),
            "m1/tri-m1-d2.wav": ("emovo_m1", "male", "sad"),
            "m1/sor-m1-d2.wav": ("emovo_m1", "male", "surprised"),
            "m1/neu-m1-d2.wav": ("emovo_m1", "male", "neutral"),
        },
        bad={
            "f1/dis-f2-b1.wav": "lies in f1 and is named f2",
            "m4/dis-m4-b1.wav": "not like f1/dis-f1-b1.wav",
        },
        texts={"documents/readme.txt": "x"},
    ),
    "nemo": Tree(
        good={
            "samples/EB0_anger_1.wav": ("nemo_EB0", "female", "angry"),
            "samples/WR0_surprised_90.wav": ("nemo_WR0", "male", "surprised"),
            "samples/MK0_happiness_2.wav": ("nemo_MK0", "female", "happy"),
            "samples/SM0_neutral_2.wav": ("nemo_SM0", "male", "neutral"),
        },
        bad={"samples/XX0_anger_1.wav": "not like", "samples/EB0_joy_1.wav": "not like"},
        texts={"data.tsv": "file_id\temotion\n", "LICENSE": "x"},
    ),
    "savee": Tree(
        good={
            "AudioData/DC/a01.wav": ("savee_DC", "male", "angry"),
            "AudioData/JE/sa03.wav": ("savee_JE", "male", "sad"),
            "AudioData/JK/su15.wav": ("savee_JK", "male", "surprised"),
            "ALL/KL_n30.wav": ("savee_KL", "male", "neutral"),
        },
        bad={"AudioData/DC/x01.wav": "not like", "AudioData/XX/a01.wav": "not like"},
        texts={"Info.txt": "x"},
    ),
    "tess": Tree(
        good={
            "OAF_Fear/OAF_back_fear.wav": ("tess_OAF", "female", "fearful"),
            "YAF_pleasant_surprised/YAF_bar_ps.wav": ("tess_YAF", "female", "surprised"),
            "OAF_neutral/OA_bite_neutral.wav": ("tess_OAF", "female", "neutral"),
        },
        bad={
            "OAF_neutral/OA_back_neutral.wav": "not like",
            "copy/OAF_Fear/OAF_back_fear.wav": "its id occurs more than once",
        },
    ),
    "shemo": Tree(
        good={
            "female/F01A01.wav": ("shemo_F01", "female", "angry"),
            "male/M56W02.wav": ("shemo_M56", "male", "surprised"),
            "male/M01F02.wav": ("shemo_M01", "male", "fearful"),
        },
        bad={
            "male/F01N05.wav": "lies in male and is named as female",
            "male/M01X01.wav": "not like female/F01A01.wav",
        },
        texts={"transcript/F01A01.txt": "x"},
    ),
    "subesco": Tree(
        good={
            "F_02_MONIKA_S_1_NEUTRAL_5.wav": ("subesco_F_02", "female", "neutral"),
            "M_02_TUHIN_S_10_SURPRISE_1.wav": ("subesco_M_02", "male", "surprised"),
        },
        bad={"F_02_MONIKA_S_1_CALM_5.wav": "not like"},
    ),
    "esd": Tree(
        good={
            "0001/Angry/0001_000351.wav": ("esd_0001", "female", "angry"),
            "0004/Neutral/0004_000350.wav": ("esd_0004", "male", "neutral"),
            "0020/Surprise/0020_001750.wav": ("esd_0020", "male", "surprised"),
            "0015/Happy/test/0015_000721.wav": ("esd_0015", "female", "happy"),
        },
        bad={
            "0001/Angry/0001_000350.wav": "lies in Angry, which holds the numbers 351 to 700",
            "0001/Angry/0021_000351.wav": "not like 0001/Angry/0001_000351.wav",
        },
        texts={"0001/0001.txt": "0001_000351\tx\t生气\n", "ReadMe.txt": "x"},
    ),
}


MSP = {
    "Labels/labels_consensus.csv": "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set\n"
    "MSP-PODCAST_0001_0008.wav,N,3.4,4.2,3.6,127,Male,Test1\n"
    "MSP-PODCAST_0001_0019.wav,H,4,4,4,Unknown,Unknown,Train\n"
    "MSP-PODCAST_0002_0033.wav,A,4,4,4,Unknown,Female,Train\n"
    "MSP-PODCAST_0003_0005.wav,C,4,4,4,7,Female,Development\n"
    "MSP-PODCAST_0004_0001.wav,X,4,4,4,8,Female,Train\n"
    "MSP-PODCAST_0005_0001_0002.wav,S,4,4,4,9,Female,Test2\n"
    "MSP-PODCAST_0006_0001.wav,D,4,4,4,10,Male,Train\n",
}
MSP_AUDIO = (
    *("0001_0008", "0001_0019", "0002_0033", "0003_0005", "0004_0001", "0005_0001_0002"),
    *("test3_0001", "0099_0001"),
)
